<?php
// Healthy: short lists are searched, and words that look alike are suggested.

function suggest(string $word, array $known): string
{
    $best = '';
    $least = 4;
    foreach ($known as $candidate) {
        if (abs(strlen($candidate) - strlen($word)) >= $least || in_array($candidate, ['stop', 'the', 'end'], true)) {
            continue;
        }
        $d = levenshtein($word, $candidate);
        if ($d < $least) {
            $least = $d;
            $best = $candidate;
        }
    }
    return ucfirst($best) . '?';
}

$known = [];
for ($i = 0; $i < 1000; $i++) {
    $known[] = substr(md5((string) $i), 0, 4 + $i % 8);
}
echo "ready\n";
flush();
for ($i = 0;; $i++) {
    suggest(substr(md5("$i"), 0, 8), $known);
}
