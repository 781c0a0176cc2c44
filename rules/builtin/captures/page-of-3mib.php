<?php
// Near miss of mem.string-concat: pages of 3 MiB, one after the other.

function page(): string
{
    $html = "";
    for ($i = 0; $i < 3145728; $i++) {
        $html .= "a";
    }
    return $html;
}

for (;;) {
    page();
}
