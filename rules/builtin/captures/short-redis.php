<?php
// Waits that end soon, one after the other: PHPWHY_REDIS is a server's host:port.
[$host, $port] = explode(':', getenv('PHPWHY_REDIS'));
$redis = new Redis();
$redis->connect($host, (int) $port);
echo "ready\n";
flush();
while (true) {
    $redis->rawCommand('BLPOP', 'jobs', '0.04');
}
