<?php
// Near miss of mem.array-append: lists of 100,000 rows, one after the other.

function rows(): array
{
    $rows = [];
    for ($i = 0; $i < 100000; $i++) {
        $rows[] = $i;
    }
    return $rows;
}

for (;;) {
    rows();
}
