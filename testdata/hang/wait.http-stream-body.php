<?php
// Rule wait.http-stream: an HTTP server sends a part of its answer and stops.
// Here it is a child of this process, which ends with it.

function exchangeRates(string $url): array
{
    $json = file_get_contents($url);
    return json_decode($json, true);
}

$server = <<<'PHP'
    $server = stream_socket_server('tcp://127.0.0.1:0');
    echo stream_socket_get_name($server, false), "\n";
    $client = stream_socket_accept($server, 600);
    fread($client, 4096);
    fwrite($client, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{");
    fgets(STDIN);
    PHP;
$child = proc_open([PHP_BINARY, '-n', '-r', $server], [['pipe', 'r'], ['pipe', 'w']], $pipes);
$address = trim(fgets($pipes[1]));
ini_set('default_socket_timeout', '600');

echo "ready\n";
flush();
exchangeRates("http://$address/rates?base=EUR");
