<?php
echo "ready\n";
flush();
$body = file_get_contents('php://input');
