<?php
// Rule cpu.feof-loop: lines are read until feof(), from a connection that does
// not block and on which nothing comes. fgets() returns at once with nothing,
// feof() says that there may be more, and round it goes.

function receive($connection): array
{
    $lines = [];
    while (!feof($connection)) {
        $line = fgets($connection);
        if ($line !== false) {
            $lines[] = $line;
        }
    }
    return $lines;
}

$pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
stream_set_blocking($pair[0], false);
echo "ready\n";
flush();
receive($pair[0]);
