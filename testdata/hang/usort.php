<?php
// For stacks: user code called back from C. The closure runs under zend_sort
// under usort under sortRows, without end; no order ever settles.

function sortRows(array $rows): void
{
    for (;;) {
        usort($rows, function ($a, $b) {
            $sum = 0;
            for ($i = 0; $i < 1000; $i++) {
                $sum += $i;
            }
            return $sum > 0 ? $b - $a : 0;
        });
        $rows = array_reverse($rows);
    }
}

echo "ready\n";
flush();
sortRows(range(1, 200));
