<?php
// Rule wait.http-stream: an HTTP server takes the request and does not answer.
// Here it is a port of this process that nobody reads from.

function exchangeRates(string $url): array
{
    $json = file_get_contents($url);
    return json_decode($json, true);
}

$server = stream_socket_server('tcp://127.0.0.1:0');
ini_set('default_socket_timeout', '600');

echo "ready\n";
flush();
exchangeRates('http://' . stream_socket_get_name($server, false) . '/rates?base=EUR');
