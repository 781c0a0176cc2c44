<?php
// Rule wait.dns: curl looks a name up in a thread of its own, and the name server
// does not answer. Like wait.dns.php it needs a network of its own.

function exchangeRates(string $url): string
{
    $curl = curl_init($url);
    curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
    return curl_exec($curl);
}

$server = stream_socket_server('udp://127.0.0.1:53', $errno, $error, STREAM_SERVER_BIND);
if (!$server) {
    exit("port 53: $error\n");
}

echo "ready\n";
flush();
exchangeRates('http://rates.example.com/');
