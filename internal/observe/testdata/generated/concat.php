<?php
// build 6
function build()
{
    $s = "";
    while (true) { $s .= "a"; if (strlen($s) > 3000000) { $s = ""; } }
}

function outer()
{
    build();
}

echo "ready\n";
outer();
