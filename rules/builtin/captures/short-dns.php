<?php
// A name server that answers, if slowly, and is asked over and over. See
// testdata/servers/without-dns.
$server = <<<'PHP'
    $socket = stream_socket_server('udp://127.0.0.1:53', $errno, $error, STREAM_SERVER_BIND);
    while ($ready = [$socket, STDIN]) {
        $none = null;
        stream_select($ready, $none, $none, null);
        if (in_array(STDIN, $ready, true)) {
            exit; // the parent has ended
        }
        $query = stream_socket_recvfrom($socket, 512, 0, $from);
        usleep(40000);
        // No such name.
        stream_socket_sendto($socket, substr($query, 0, 2) . "\x81\x83" . substr($query, 4), 0, $from);
    }
    PHP;
$child = proc_open([PHP_BINARY, '-n', '-r', $server], [['pipe', 'r']], $pipes);
usleep(300000);
echo "ready\n";
flush();
while (true) {
    gethostbyname('mail.example.com');
}
