<?php
// Rule mem.output-buffer: an export is printed while output is buffered, and
// never flushed. Each 4 KB cost one mremap of the buffer. Needs
// -d memory_limit=-1; grows by some 10 MB/s, so bound it from outside.

function export(): void
{
    $row = '';
    for (;;) { // was meant to stop at the last row
        for ($i = 0; $i < 300; $i++) { // as long as a row takes to make
            $row = md5($row);
        }
        echo str_repeat("$row ", 32), "\n";
    }
}

echo "ready\n";
flush();
ob_start();
echo str_repeat('a page that is made before the export ', 100000);
export();
