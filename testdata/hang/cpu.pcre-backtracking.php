<?php
// Rule cpu.pcre-backtracking: nested quantifiers and a text that almost matches,
// in PCRE's interpreter. Each further letter doubles the time; with 48 of them it
// is days. Without the higher limit PHP would give up after a million steps, some
// milliseconds.

ini_set('pcre.jit', '0');
ini_set('pcre.backtrack_limit', '4294967295'); // PCRE2 counts in 32 bits

function isName(string $name): bool
{
    return preg_match('/^(\w+\s?)+$/', $name) === 1;
}

echo "ready\n";
flush();
for (;;) {
    isName(str_repeat('a', 48) . '!');
}
