<?php
// Measures how long it was kept from running: prints "ready", loops for the
// given milliseconds, and prints the longest gap between two looks at the clock
// in nanoseconds. It makes no system call in between (hrtime is the vDSO's), so
// a gap is the scheduler, an interrupt, or somebody who stopped it.

function watch(int $ms): int
{
    $last = hrtime(true);
    $end = $last + $ms * 1000000;
    $longest = 0;
    while ($last < $end) {
        $now = hrtime(true);
        if ($now - $last > $longest) {
            $longest = $now - $last;
        }
        $last = $now;
    }
    return $longest;
}

echo "ready\n";
echo watch((int) $argv[1]), "\n";
