<?php
// Near miss of mem.recursion: 500 calls deep, and back again.

function walk(int $depth): int
{
    return $depth === 0 ? 0 : 1 + walk($depth - 1);
}

for (;;) {
    walk(500);
}
