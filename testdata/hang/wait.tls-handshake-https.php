<?php
// Rule wait.tls-handshake: an HTTPS server that does not speak TLS. Here it is a
// port of this process that nobody reads from.

function exchangeRates(string $url): string
{
    return file_get_contents($url);
}

$server = stream_socket_server('tcp://127.0.0.1:0');
ini_set('default_socket_timeout', '600');

echo "ready\n";
flush();
exchangeRates('https://' . stream_socket_get_name($server, false) . '/rates');
