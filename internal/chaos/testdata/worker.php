<?php
// A worker: "loop" never returns from a function of C that calls mremap,
// "concat" appends to a string and checks what comes out. See worker.c.
const TICK = 770001, BAD = 770002, LOOP = 770003;

function grow(string $block): string
{
    $s = '';
    for ($i = 0; $i < 2048; $i++) {
        $s .= $block;
        if ($i % 8 === 0) {
            usleep(TICK);
        }
    }
    return $s;
}

if (PHP_SAPI !== 'cli') {
    header('X-Worker: ' . getmypid());
}
echo "ready\n";
flush();
if (($argv[1] ?? $_GET['mode'] ?? '') === 'loop') {
    usleep(LOOP);
}
for ($n = 0;; $n++) {
    $block = str_repeat(chr(65 + $n % 26), 4096);
    $s = grow($block);
    for ($i = 0; $i < 2048; $i += 97) {
        if (substr_compare($s, $block, $i * 4096, 4096) !== 0) {
            usleep(BAD);
        }
    }
    if (strlen($s) !== 2048 * 4096) {
        usleep(BAD);
    }
}
