<?php
// Waits that end at once, of several kinds that a rule knows: a lock, a program,
// a pipe, a short sleep.
$path = sys_get_temp_dir() . '/phpwhy-waits-' . getmypid();
$feed = popen('while echo tick; do sleep 0.02; done', 'r');
echo "ready\n";
flush();
for ($n = 0; ; $n++) {
    $file = fopen($path, 'c');
    flock($file, LOCK_EX);
    usleep(20000 + $n % 7 * 1000);
    file_put_contents("$path.log", "$n\n", LOCK_EX);
    unlink("$path.log");
    flock($file, LOCK_UN);
    fclose($file);
    unlink($path);
    shell_exec("sleep 0.03; echo $n");
    for ($i = 0; $i < 3; $i++) {
        fgets($feed);
    }
}
