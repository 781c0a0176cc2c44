<?php
// Rule wait.redis: the server takes the command and does not answer. Here it is a
// port of this process that nobody reads from.

function visits(Redis $redis): int
{
    return (int) $redis->get('visits');
}

$server = stream_socket_server('tcp://127.0.0.1:0');
[$host, $port] = explode(':', stream_socket_get_name($server, false));
$redis = new Redis();
$redis->connect($host, (int) $port, 600);

echo "ready\n";
flush();
visits($redis);
