<?php
// A server that does not answer, and a client that does not wait long for it.
$server = stream_socket_server('tcp://127.0.0.1:0');
$curl = curl_init('http://' . stream_socket_get_name($server, false) . '/');
curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
curl_setopt($curl, CURLOPT_TIMEOUT_MS, 40);
echo "ready\n";
flush();
while (true) {
    curl_exec($curl);
    @fclose(stream_socket_accept($server, 0));
}
