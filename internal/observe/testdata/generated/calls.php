<?php
// leaf 5 6 7 8 9 mid 14 loop 20 21 22
function leaf($n)
{
    $x = $n;
    return str_repeat("x",
        100000 + $n +
        $x
        );
}

function mid($n)
{
    return strlen(leaf($n));
}

function loop()
{
    $sum = 0;
    while (true) {
        $sum += mid($sum % 5);
        $sum %= 1000;
    }
}

echo "ready\n";
loop();
