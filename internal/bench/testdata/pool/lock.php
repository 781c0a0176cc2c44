<?php // the first one takes the lock and keeps it
$lock = fopen(__DIR__ . '/lock', 'c');
flock($lock, LOCK_EX);
sleep(600);
