<?php
// attempt 5
function attempt($s)
{
    return preg_match('/^(a+)+$/', $s);
}

ini_set('pcre.backtrack_limit', '100000000000');
echo "ready\n";
while (true) {
    attempt(str_repeat('a', 28) . 'b');
}
