<?php
// Rule wait.http-stream: a SOAP service takes the connection and does not answer.
// The port is the worker's own, so that no server is needed. Needs the extension soap.

$server = stream_socket_server('tcp://127.0.0.1:0');

function stock(string $server): mixed
{
    ini_set('default_socket_timeout', '600');
    $client = new SoapClient(null, ['location' => "http://$server/soap", 'uri' => 'urn:stock']);
    return $client->__soapCall('stock', [7]);
}

echo "ready\n";
flush();
stock(stream_socket_get_name($server, false));
