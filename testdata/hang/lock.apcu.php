<?php
// apcu_entry() keeps the cache locked while it computes a value.
$pid = pcntl_fork();
if ($pid === 0) {
    apcu_entry('rates', function () {
        sleep(60);
    });
    exit;
}
usleep(200000);
echo "ready\n";
apcu_store('visits', 1);
