<?php
// A server that does not answer, and a client that does not wait long for it.
$server = stream_socket_server('tcp://127.0.0.1:0');
[$host, $port] = explode(':', stream_socket_get_name($server, false));
$cache = new Memcached();
$cache->setOption(Memcached::OPT_POLL_TIMEOUT, 40);
$cache->setOption(Memcached::OPT_CONNECT_TIMEOUT, 40);
$cache->setOption(Memcached::OPT_SERVER_FAILURE_LIMIT, 0);
$cache->setOption(Memcached::OPT_RETRY_TIMEOUT, 0);
$cache->addServer($host, (int) $port);
echo "ready\n";
flush();
while (true) {
    $cache->get('session:a81f');
    while ($gone = @stream_socket_accept($server, 0)) {
        fclose($gone);
    }
}
