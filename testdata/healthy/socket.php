<?php
// Healthy: lines are read from a connection until its end, as fast as they come.

function received($in): int
{
    $sum = 0;
    while (!feof($in)) {
        $line = fgets($in);
        if ($line !== false) {
            $fields = explode(';', trim($line));
            $sum += (int) $fields[1] + strlen(strtoupper($fields[2]));
        }
    }
    return $sum;
}

echo "ready\n";
flush();
for (;;) {
    list($in, $out) = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    for ($i = 0; $i < 1500; $i++) {
        fwrite($out, "order;$i;a line of an order\n");
    }
    fclose($out);
    received($in);
}
