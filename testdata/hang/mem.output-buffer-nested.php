<?php
// Rule mem.output-buffer: as mem.output-buffer.php, below a buffer that is there
// already, as by output_buffering=4096 in php.ini. Needs -d memory_limit=-1.

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
ob_start();
echo str_repeat('a page that is made before the export ', 100000);
export();
