<?php
// Rule cpu.php-loop: the search for the root of a category tree, in which two
// categories are each other's parent. No system call, no allocation, one core.

function rootOf(int $id, array $parent): int
{
    while ($parent[$id] !== 0) {
        $id = $parent[$id];
    }
    return $id;
}

echo "ready\n";
flush();
rootOf(3, [1 => 0, 2 => 3, 3 => 2]);
