<?php
// Healthy: log lines are taken apart with regular expressions.

function summary(array $lines): array
{
    $n = [];
    foreach ($lines as $line) {
        if (!preg_match('/^(\S+) \S+ \S+ \[([^\]]+)\] "(\w+) ([^"]*) HTTP\/[\d.]+" (\d{3}) (\d+)/', $line, $m)) {
            continue;
        }
        $path = preg_replace('/\d+/', '#', $m[4]);
        $n[$path . ' ' . $m[5]] = ($n[$path . ' ' . $m[5]] ?? 0) + (int) $m[6];
    }
    return $n;
}

$lines = [];
for ($i = 0; $i < 2000; $i++) {
    $lines[] = "10.0.0.$i - - [23/Nov/2026:10:00:00 +0000] \"GET /item/$i/show?page=$i HTTP/1.1\" 200 " . $i * 17;
}
echo "ready\n";
flush();
for (;;) {
    summary($lines);
}
