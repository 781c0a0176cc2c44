<?php
// Rule mem.serialize: in memory a structure is small because its parts are
// shared; written out, each level doubles it. 23 levels are some 400 MB of text,
// and it is stored after each row. Needs -d memory_limit=-1.

function shared(int $levels): array
{
    $tree = ['leaf' => 'a value that many nodes share'];
    for ($i = 0; $i < $levels; $i++) {
        $tree = ['left' => $tree, 'right' => $tree];
    }
    return $tree;
}

function store(array $session): int
{
    return strlen(serialize($session));
}

echo "ready\n";
flush();
$session = shared(23);
for (;;) {
    store($session);
}
