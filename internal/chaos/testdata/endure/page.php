<?php
$started = $_SERVER['REQUEST_TIME_FLOAT'];
$sum = 0;
for ($i = 0; $i < 2000; $i++) $sum += $i;
echo "page\n\nready\n";
