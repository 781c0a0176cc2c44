<?php
// Several chunks and a huge block, partly given back.
ini_set('memory_limit', '200M');
$a = range(1, 300000);
$b = str_repeat('x', 20 << 20);
$c = str_repeat('y', 30 << 20);
unset($c);
echo json_encode([
    'Used' => memory_get_usage(), 'Peak' => memory_get_peak_usage(),
    'Reserved' => memory_get_usage(true), 'RealPeak' => memory_get_peak_usage(true), 'Limit' => 200 << 20,
]), "\n";
fgets(STDIN);
