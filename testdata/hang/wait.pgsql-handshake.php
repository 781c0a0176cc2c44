<?php
// Rule wait.pgsql, handshake phase: the server takes the connection and does not
// answer. Here it is a port of this process that nobody reads from.

function connect(string $host, int $port)
{
    return pg_connect("host=$host port=$port user=shop dbname=shop");
}

$server = stream_socket_server('tcp://127.0.0.1:0');
[$host, $port] = explode(':', stream_socket_get_name($server, false));

echo "ready\n";
flush();
connect($host, (int) $port);
