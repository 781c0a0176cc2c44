<?php
// Rule cpu.xpath: an expression that looks at all nodes before each node, on a
// document with some 100,000 of them. Needs the dom extension.

function firstOfEachName(DOMDocument $doc): int
{
    $xpath = new DOMXPath($doc);
    return $xpath->query('//item[not(@name = preceding::item/@name)]')->length;
}

$doc = new DOMDocument();
$root = $doc->appendChild($doc->createElement('items'));
for ($i = 0; $i < 100000; $i++) {
    $item = $root->appendChild($doc->createElement('item'));
    $item->setAttribute('name', "item $i");
}
echo "ready\n";
flush();
firstOfEachName($doc);
