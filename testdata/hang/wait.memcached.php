<?php
// Rule wait.memcached: the server takes the command and does not answer. Here it
// is a port of this process that nobody reads from.

function session(Memcached $cache, string $id): mixed
{
    return $cache->get("session:$id");
}

$server = stream_socket_server('tcp://127.0.0.1:0');
[$host, $port] = explode(':', stream_socket_get_name($server, false));
$cache = new Memcached();
$cache->setOption(Memcached::OPT_POLL_TIMEOUT, 600000);
$cache->addServer($host, (int) $port);

echo "ready\n";
flush();
session($cache, 'a81f');
