<?php
// For stacks: catastrophic backtracking in PCRE's interpreter, one call lasting
// a minute or more (match <- pcre2_match_8 <- php_pcre_match_impl).

ini_set('pcre.jit', '0');
ini_set('pcre.backtrack_limit', '4294967295'); // PCRE2 counts in 32 bits

function validate(string $name)
{
    return preg_match('/^(a+)+$/', $name);
}

echo "ready\n";
flush();
for (;;) {
    validate(str_repeat('a', 48) . '!');
}
