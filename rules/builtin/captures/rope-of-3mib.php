<?php
// Near-miss of mem.string-rope: pages of 3 MiB by interpolation, each ends.

function page(string $html): string
{
    while (strlen($html) < 3145728) {
        $html = "$html<tr><td>a row that is some hundred bytes long, as they are</td><td>and another cell of it</td></tr>\n";
    }
    return $html;
}

echo "ready\n";
flush();
for (;;) {
    page(str_repeat(' ', 3000000));
}
