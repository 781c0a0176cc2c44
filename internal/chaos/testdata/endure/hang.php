<?php
// Hangs for a while: ?how=cpu computes, ?how=wait waits.
$until = $_SERVER['REQUEST_TIME_FLOAT'] + 12;
parse_str($_SERVER['QUERY_STRING'] ?? '', $q);
echo "worker ", getmypid(), "\n\nready\n";
while (ob_get_level()) ob_end_flush();
flush();
function compute(float $until): void { while (microtime(true) < $until) for ($i = 0; $i < 10000; $i++); }
function wait(float $until): void { while (microtime(true) < $until) usleep(50000); }
$q['how'] === 'cpu' ? compute($until) : wait($until);
