<?php
// Rule wait.mysql, handshake phase: the server takes the connection and does not
// greet. Here it is a port of this process that nobody reads from.

function connect(string $host, int $port): PDO
{
    return new PDO("mysql:host=$host;port=$port;dbname=shop", 'shop', 'secret');
}

$server = stream_socket_server('tcp://127.0.0.1:0');
[$host, $port] = explode(':', stream_socket_get_name($server, false));
ini_set('default_socket_timeout', '600');

echo "ready\n";
flush();
connect($host, (int) $port);
