<?php
// Healthy: lists are made, sorted and shown, once each.

function report(int $n): string
{
    $rows = [];
    for ($i = 0; $i < $n; $i++) {
        $rows[] = ['id' => $i, 'amount' => mt_rand(0, 100000), 'name' => "customer $i"];
    }
    usort($rows, function (array $a, array $b): int {
        return $b['amount'] <=> $a['amount'];
    });
    $out = '';
    foreach ($rows as $row) {
        $out .= sprintf("%6d %-20s %10.2f\n", $row['id'], strtoupper($row['name']), $row['amount'] / 100);
    }
    return md5($out);
}

echo "ready\n";
flush();
for (;;) {
    report(200);
}
