<?php
// Rule mem.array-append: rows are collected without end. The packed array
// doubles each time it is full, and past 2 MiB that is an mremap or an mmap.
// One array would exhaust any memory within seconds, so each batch starts over
// at 64 MiB: some tens of doublings a second, for as long as needed.
// Needs -d memory_limit=-1.

function collectRows(): void
{
    for (;;) {
        $rows = [];
        for ($n = 0; $n < 4194304; $n++) {
            $rows[] = $n;
        }
    }
}

echo "ready\n";
flush();
collectRows();
