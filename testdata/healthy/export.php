<?php
// Healthy: an export through an output buffer that is flushed now and then.

function export(): void
{
    for ($i = 0;; $i++) {
        echo $i, ';', md5((string) $i), ";a row of the export\n";
        if ($i % 1000 === 999) {
            ob_clean(); // a real one flushes it to the client
        }
    }
}

echo "ready\n";
flush();
ob_start();
export();
