<?php
// Rule cpu.string-distance: two texts are compared with a function that is meant
// for words. similar_text takes time cubic in their length.

function duplicates(array $texts): int
{
    $n = 0;
    foreach ($texts as $a) {
        foreach ($texts as $b) {
            similar_text($a, $b, $percent);
            $n += $percent > 90 ? 1 : 0;
        }
    }
    return $n;
}

mt_srand(1);
$texts = [];
for ($i = 0; $i < 10; $i++) {
    $text = '';
    for ($j = 0; $j < 60000; $j++) {
        $text .= chr(97 + mt_rand(0, 25));
    }
    $texts[] = $text;
}
echo "ready\n";
flush();
duplicates($texts);
