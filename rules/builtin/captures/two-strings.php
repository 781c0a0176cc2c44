<?php
// mem.string-concat with two strings that grow in turn: two chains at once.

function export(): void
{
    $head = $body = str_repeat("x", 3000000);
    for (;;) {
        $head .= str_repeat("a", 2000);
        $body .= str_repeat("b", 500);
    }
}

export();
