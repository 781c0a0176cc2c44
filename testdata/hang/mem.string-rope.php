<?php
// Rule mem.string-rope: a page is put together by interpolation, and each row
// makes the whole string anew: an mmap of its size, a copy, an munmap. Starts at
// 5 MiB, where a real one would be after some thousand rows; grows by some
// hundred KB/s at first, ever slower. Needs -d memory_limit=-1.

function renderRows(string $html): string
{
    for ($row = 0; $row >= 0; $row++) { // was meant to stop at the last row
        $html = "$html<tr><td>$row</td><td>a product that somebody ordered</td></tr>\n";
    }
    return $html;
}

echo "ready\n";
flush();
renderRows(str_repeat("<!-- header -->\n", 327680));
