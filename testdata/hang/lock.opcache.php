<?php
// Compiles a file once somebody else has opcache's lock.
$dir = getenv('PHPWHY_HANG');
echo "ready\n";
while (!file_exists("$dir/locked")) {
    clearstatcache();
    usleep(600);
}
include "$dir/page.php";
