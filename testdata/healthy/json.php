<?php
// Healthy: an API server's day, decoding and encoding documents of some 50 KB.
// Needs json, which PHP before 8.0 may lack.

function answer(string $body): string
{
    $doc = json_decode($body, true);
    foreach ($doc['rows'] as $i => $row) {
        $doc['rows'][$i]['total'] = $row['price'] * $row['n'];
    }
    return json_encode($doc);
}

$rows = [];
for ($i = 0; $i < 500; $i++) {
    $rows[] = ['id' => $i, 'name' => "product $i", 'price' => $i % 97, 'n' => $i % 5, 'tags' => ['new', 'sale']];
}
$body = json_encode(['rows' => $rows]);
echo "ready\n";
flush();
for (;;) {
    answer($body);
}
