<?php
// Rule wait.stream-select: an event loop waits without a limit, and none of its
// connections says anything.

function loop(array $connections): void
{
    while ($connections) {
        $read = $connections;
        $write = $except = null;
        stream_select($read, $write, $except, null);
        foreach ($read as $i => $connection) {
            if (fgets($connection) === false) {
                unset($connections[$i]);
            }
        }
    }
}

$server = stream_socket_server('tcp://127.0.0.1:0');
for ($i = 0; $i < 3; $i++) {
    $connections[] = stream_socket_client('tcp://' . stream_socket_get_name($server, false));
}

echo "ready\n";
flush();
loop($connections);
