<?php
// mem.array-append with string keys: a hash table that doubles, not a list.

function index(): void
{
    for (;;) {
        $byKey = [];
        for ($i = 0; $i < 2000000; $i++) {
            $byKey["k" . $i] = 1;
        }
    }
}

index();
