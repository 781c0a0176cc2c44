<?php
// Rule mem.string-concat: a loop that appends to one string and never ends.
// Past 2 MiB every 4096 bytes cost one mremap of the block, some thousands a
// second. Needs -d memory_limit=-1; grows by about 30 MB/s, so bound it from
// outside (ulimit -v).

function buildReport(): string
{
    $report = "";
    $row = 0;
    while ($row >= 0) { // was meant to stop at the last row
        $report .= "a";
    }
    return $report;
}

echo "ready\n";
flush();
buildReport();
