<?php
echo "ready\n";
flush();
$log = fopen('php://stderr', 'w');
for ($n = 0; ; $n++) {
    fwrite($log, str_repeat("warning $n ", 100) . "\n");
}
