<?php
// Near miss of mem.array-append: lists of 400,000 rows, one after the other.

function rows(): array
{
    $rows = [];
    for ($i = 0; $i < 400000; $i++) {
        $rows[] = $i;
    }
    return $rows;
}

for (;;) {
    rows();
}
