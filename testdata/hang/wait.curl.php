<?php
// Rule wait.curl: an HTTP server takes the request and does not answer. Here it
// is a port of this process that nobody reads from.

function exchangeRates(string $url): string
{
    $curl = curl_init($url);
    curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
    return curl_exec($curl);
}

$server = stream_socket_server('tcp://127.0.0.1:0');

echo "ready\n";
flush();
exchangeRates('http://' . stream_socket_get_name($server, false) . '/rates?base=EUR');
