<?php
// Rule wait.dns: a stream is to be opened, and the name server does not answer.
// Like wait.dns.php it needs a network of its own.

function exchangeRates(string $url): string
{
    return file_get_contents($url);
}

$server = stream_socket_server('udp://127.0.0.1:53', $errno, $error, STREAM_SERVER_BIND);
if (!$server) {
    exit("port 53: $error\n");
}

echo "ready\n";
flush();
exchangeRates('http://rates.example.com/');
