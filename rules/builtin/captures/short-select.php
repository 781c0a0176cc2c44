<?php
// An event loop that wakes up to look after its timers.
$server = stream_socket_server('tcp://127.0.0.1:0');
$connection = stream_socket_client('tcp://' . stream_socket_get_name($server, false));
echo "ready\n";
flush();
while (true) {
    $read = [$server, $connection];
    $write = $except = null;
    stream_select($read, $write, $except, 0, 40000);
}
