<?php
// Healthy: rows come from a generator, are mapped and summed.

function rows(int $n): Generator
{
    for ($i = 0; $i < $n; $i++) {
        yield ['id' => $i, 'text' => str_repeat('x', $i % 100)];
    }
}

function total(iterable $rows): int
{
    $sum = 0;
    foreach ($rows as $row) {
        $sum += strlen($row['text']);
    }
    return $sum;
}

echo "ready\n";
flush();
for (;;) {
    total(rows(10000));
}
