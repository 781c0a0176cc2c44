<?php
// Healthy: small documents are parsed and searched. Needs the dom extension.

function total(string $xml): float
{
    $doc = new DOMDocument();
    $doc->loadXML($xml);
    $xpath = new DOMXPath($doc);
    $sum = 0.0;
    foreach ($xpath->query('/orders/order/price') as $price) {
        $sum += (float) $price->textContent;
    }
    return $sum;
}

$xml = '<orders>';
for ($i = 0; $i < 100; $i++) {
    $xml .= "<order><id>$i</id><price>$i.5</price></order>";
}
$xml .= '</orders>';
echo "ready\n";
flush();
for (;;) {
    total($xml);
}
