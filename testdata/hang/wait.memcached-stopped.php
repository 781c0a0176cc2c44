<?php
// Rule wait.memcached: the server was stopped while it was in use.
// PHPWHY_MEMCACHED is its host:port.

function session(Memcached $cache, string $id): mixed
{
    return $cache->get("session:$id");
}

[$host, $port] = explode(':', getenv('PHPWHY_MEMCACHED'));
$cache = new Memcached();
$cache->setOption(Memcached::OPT_POLL_TIMEOUT, 600000);
$cache->addServer($host, (int) $port);
$cache->set('session:a81f', 'logged in');
exec('kill -STOP ' . $cache->getStats()["$host:$port"]['pid']);

echo "ready\n";
flush();
session($cache, 'a81f');
