<?php
// Rule wait.dns: the name server does not answer. Here it is a port 53 of this
// process that nobody reads from, in a network of its own with a resolv.conf of
// its own: see testphp.WithoutDNS.

function mailHost(string $domain): string
{
    return gethostbyname("mail.$domain");
}

$server = stream_socket_server('udp://127.0.0.1:53', $errno, $error, STREAM_SERVER_BIND);
if (!$server) {
    exit("port 53: $error\n");
}

echo "ready\n";
flush();
mailHost('example.com');
