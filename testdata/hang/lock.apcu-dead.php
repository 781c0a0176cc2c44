<?php
// A worker is killed while it has the cache's lock, and nobody else gets it.
$pid = pcntl_fork();
if ($pid === 0) {
    apcu_entry('rates', function () {
        sleep(60);
    });
    exit;
}
usleep(200000);
exec("kill -9 $pid");
pcntl_waitpid($pid, $status);
echo "ready\n";
apcu_store('visits', 1);
