<?php
// Healthy: words are counted in a table of a million keys, which is slow on any
// processor because its caches are smaller.

function countWords(array $words, array $keys): int
{
    $hits = 0;
    foreach ($keys as $key) {
        if (isset($words[$key])) {
            $hits++;
        }
    }
    return $hits;
}

mt_srand(1);
$words = $keys = [];
for ($i = 0; $i < 1000000; $i++) {
    $words["word " . $i * 7] = $i;
}
for ($i = 0; $i < 1000000; $i++) {
    $keys[] = "word " . mt_rand(0, 7000000);
}
echo "ready\n";
flush();
for (;;) {
    countWords($words, $keys);
}
