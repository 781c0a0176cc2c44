<?php
// Healthy: a large file is read line by line until its end, over and over.

function countLines(string $path): int
{
    $n = 0;
    $h = fopen($path, 'r');
    while (!feof($h)) {
        if (fgets($h) !== false) {
            $n++;
        }
    }
    fclose($h);
    return $n;
}

$path = tempnam(sys_get_temp_dir(), 'lines');
file_put_contents($path, str_repeat("a line of a log file, of which there are many\n", 200000));
register_shutdown_function('unlink', $path);
$keep = fopen($path, 'r');
echo "ready\n";
flush();
for (;;) {
    countLines($path);
}
