<?php
// Started twice: the first one leaves its transaction open.
$db = new SQLite3(getenv('PHPWHY_HANG') . '/app.sqlite');
$db->busyTimeout(1000000);
echo "ready\n";
$db->exec('BEGIN EXCLUSIVE');
sleep(600);
