<?php
// Rule wait.curl: several HTTP servers take their requests and do not answer.
// Here they are ports of this process that nobody reads from.

function fetchAll(array $urls): void
{
    $multi = curl_multi_init();
    foreach ($urls as $url) {
        $curl = curl_init($url);
        curl_setopt($curl, CURLOPT_RETURNTRANSFER, true);
        curl_multi_add_handle($multi, $curl);
    }
    do {
        curl_multi_exec($multi, $running);
        curl_multi_select($multi, 600);
    } while ($running);
}

for ($i = 0; $i < 3; $i++) {
    $servers[] = $server = stream_socket_server('tcp://127.0.0.1:0');
    $urls[] = 'http://' . stream_socket_get_name($server, false) . '/';
}

echo "ready\n";
flush();
fetchAll($urls);
