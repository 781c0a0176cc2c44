<?php
// Rule cpu.pcre-jit: nested quantifiers and a text that almost matches, in the
// code that PCRE's JIT compiler made of the pattern. That code has no symbols and
// no call-frame information.

ini_set('pcre.jit', '1');
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
