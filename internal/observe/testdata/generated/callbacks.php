<?php
// compare 5 go 11 12 13
function compare($a, $b)
{
    return strlen(str_repeat("x", $a * 1000)) - strlen(str_repeat("y", $b * 1000));
}

function go()
{
    $list = range(1, 50);
    while (true) {
        shuffle($list);
        usort($list, 'compare');
    }
}

echo "ready\n";
go();
