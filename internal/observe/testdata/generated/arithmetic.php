<?php
// spin 7 8 9
function spin()
{
    $x = 1;
    $i = 0;
    while (true) {
        $x = ($x * 31 + $i) % 1000003;
        $i = $x ^ $i;
    }
}

echo "ready\n";
spin();
