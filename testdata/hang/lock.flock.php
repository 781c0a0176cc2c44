<?php
// Started twice: the first one keeps the lock.
$file = fopen(getenv('PHPWHY_HANG') . '/export.lock', 'c');
echo "ready\n";
flock($file, LOCK_EX);
sleep(600);
