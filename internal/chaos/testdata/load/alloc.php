<?php
// Grows a string past 2 MiB page by page (mremap), and an array (mmap).
$s = '';
for ($i = 0; $i < 1000; $i++) {
    $s .= str_repeat('x', 4096);
}
$a = range(1, 50_000);
$a[] = strlen($s);
echo end($a) === 4096_000 && array_sum($a) === 1_254_121_000 ? "ok\n" : "wrong\n";
