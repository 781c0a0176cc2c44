<?php
// Appends a page at a time, so that nearly every append past 2 MiB is one
// mremap: a worker that is at a breakpoint as often as it can be.
$page = str_repeat('a', 4096);
echo "ready\n";
flush();
for (;;) {
    $s = '';
    for ($i = 0; $i < 50000; $i++) {
        $s .= $page;
    }
}
