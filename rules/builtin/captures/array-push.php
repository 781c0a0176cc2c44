<?php
// mem.array-append through array_push().

function collect(): void
{
    for (;;) {
        $rows = [];
        for ($i = 0; $i < 4000000; $i++) {
            array_push($rows, $i);
        }
    }
}

collect();
