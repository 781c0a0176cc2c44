<?php
// Healthy: lists of a million numbers are made, summed and dropped.

function numbers(int $n): int
{
    $list = [];
    for ($i = 0; $i < $n; $i++) {
        $list[] = $i;
    }
    return array_sum($list);
}

echo "ready\n";
flush();
for (;;) {
    numbers(1000000);
}
