<?php
echo "ready\n";
$queue = fopen(getenv('PHPWHY_HANG') . '/queue', 'r');
