<?php
// Rule mem.recursion: a tree whose leaf is its own ancestor, walked without a
// limit. Each 256 KiB of calls take a new page of the VM stack, and each seventh
// of those an mmap of 2 MiB. The pauses stand for the work of a real visitor: some
// five mmaps a second. At 1,500,000 levels (about 170 MB, after some 15 s) the walk
// returns and begins again. Needs -d memory_limit=-1.

const LEVELS = 1500000;

function visit(array $node, int $depth): int
{
    if ($depth % 1000 === 0) {
        usleep(10000);
    }
    if ($depth >= LEVELS) {
        return $depth;
    }
    return visit($node, $depth + 1);
}

echo "ready\n";
flush();
for (;;) {
    visit(['id' => 7, 'parent' => 7], 1);
}
