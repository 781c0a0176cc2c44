<?php
// A server that does not speak TLS, and a client that does not wait long for it.
$server = stream_socket_server('tcp://127.0.0.1:0');
$address = 'ssl://' . stream_socket_get_name($server, false);
$context = stream_context_create(['ssl' => ['verify_peer' => false]]);
echo "ready\n";
flush();
while (true) {
    @stream_socket_client($address, $errno, $error, 0.04, STREAM_CLIENT_CONNECT, $context);
    @fclose(stream_socket_accept($server, 0));
}
