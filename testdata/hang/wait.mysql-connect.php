<?php
// Rule wait.mysql, connect phase: the server does not take the connection, as
// behind a firewall that drops packets. Here it is a port of this process whose
// queue is full.

function connect(string $host, int $port): mysqli
{
    return new mysqli($host, 'shop', 'secret', 'shop', $port);
}

$server = stream_socket_server('tcp://127.0.0.1:0', $errno, $error, STREAM_SERVER_BIND | STREAM_SERVER_LISTEN,
    stream_context_create(['socket' => ['backlog' => 0]]));
[$host, $port] = explode(':', stream_socket_get_name($server, false));
for ($i = 0; $i < 3; $i++) {
    $queue[] = stream_socket_client("tcp://$host:$port", $errno, $error, 0, STREAM_CLIENT_CONNECT | STREAM_CLIENT_ASYNC_CONNECT);
}
ini_set('default_socket_timeout', '600');

echo "ready\n";
flush();
connect($host, (int) $port);
