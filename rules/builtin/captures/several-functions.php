<?php
// Near miss of cpu.php-loop: work that goes from function to function.

function sum(int $n): int
{
    for ($s = $i = 0; $i < $n; $i++) {
        $s += $i;
    }
    return $s;
}

function mix(int $n): int
{
    for ($s = $i = 1; $i < $n; $i++) {
        $s ^= $i;
    }
    return $s;
}

for (;;) {
    sum(3000000);
    mix(3000000);
}
