<?php
// Healthy: large arrays, but no larger than the data: some 100,000 rows are
// collected, looked up by key, merged once and filtered.

function load(int $n): array
{
    $rows = [];
    for ($i = 0; $i < $n; $i++) {
        $rows[] = ['id' => $i, 'group' => $i % 100];
    }
    return $rows;
}

function groups(array $rows): array
{
    $byGroup = [];
    foreach ($rows as $row) {
        $byGroup["g" . $row['group']][] = $row['id'];
    }
    return $byGroup;
}

function work(): int
{
    $all = array_merge(load(50000), load(50000));
    $even = array_filter($all, function (array $row): bool {
        return $row['id'] % 2 === 0;
    });
    return count(groups($even)) + array_sum(array_column($all, 'id'));
}

echo "ready\n";
flush();
for (;;) {
    work();
}
