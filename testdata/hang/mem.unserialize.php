<?php
// Rule mem.unserialize: a cache entry of some 20 MB is read back for each
// element that is looked up. Needs -d memory_limit=-1.

function lookUp(string $cached, int $id)
{
    $all = unserialize($cached);
    return $all[$id] ?? null;
}

function prices(string $cached): int
{
    $sum = 0;
    for ($id = 0;; $id++) {
        $sum += lookUp($cached, $id % 1000)['price'];
    }
}

$catalogue = [];
for ($id = 0; $id < 200000; $id++) {
    $catalogue[] = ['id' => $id, 'name' => "product $id", 'price' => $id % 97, 'tags' => ['new', 'sale']];
}
$cached = serialize($catalogue);
unset($catalogue);
echo "ready\n";
flush();
prices($cached);
