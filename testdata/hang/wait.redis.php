<?php
// Rule wait.redis: a list stays empty, and the worker waits for it without a
// limit. PHPWHY_REDIS is a server's host:port.

function nextJob(Redis $redis): ?array
{
    return $redis->blPop(['jobs'], 0);
}

[$host, $port] = explode(':', getenv('PHPWHY_REDIS'));
$redis = new Redis();
$redis->connect($host, (int) $port);
$redis->setOption(Redis::OPT_READ_TIMEOUT, -1);

echo "ready\n";
flush();
nextJob($redis);
