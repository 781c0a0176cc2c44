<?php
// Healthy: a session of some 100 KB is read and written for each request.

function request(string $stored): string
{
    $session = unserialize($stored);
    $session['hits']++;
    return serialize($session);
}

$session = ['hits' => 0, 'cart' => []];
for ($i = 0; $i < 1000; $i++) {
    $session['cart'][] = ['id' => $i, 'name' => "product $i", 'price' => $i % 97];
}
$stored = serialize($session);
echo "ready\n";
flush();
for (;;) {
    $stored = request($stored);
}
