<?php
// Rule wait.tls-handshake: the server takes the connection and does not speak
// TLS. Here it is a port of this process that nobody reads from.

function connect(string $address)
{
    return stream_socket_client("ssl://$address", $errno, $error, 600);
}

$server = stream_socket_server('tcp://127.0.0.1:0');
ini_set('default_socket_timeout', '600');

echo "ready\n";
flush();
connect(stream_socket_get_name($server, false));
