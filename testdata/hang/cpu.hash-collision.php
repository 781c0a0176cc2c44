<?php
// Rule cpu.hash-collision: keys that are multiples of a large power of two fall
// into one bucket of PHP's hash table, so that each look-up compares all of
// them. They may come from a client: request parameters or JSON.

function index(int $keys): array
{
    $byID = [];
    for ($i = 0; $i < $keys; $i++) {
        $byID[$i * 4194304] = true;
    }
    return $byID;
}

echo "ready\n";
flush();
index(4000000);
