<?php
// A server that does not answer, and a client that does not wait long for it.
$server = stream_socket_server('tcp://127.0.0.1:0', $errno, $error, STREAM_SERVER_BIND | STREAM_SERVER_LISTEN,
    stream_context_create(['socket' => ['backlog' => 1000]]));
$url = 'http://' . stream_socket_get_name($server, false) . '/';
$context = stream_context_create(['http' => ['timeout' => 0.04]]);
echo "ready\n";
flush();
while (true) {
    @file_get_contents($url, false, $context);
    @fclose(stream_socket_accept($server, 0));
}
