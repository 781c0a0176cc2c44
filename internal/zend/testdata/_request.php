<?php
// Asks for the time, as every script that looks at $_SERVER does.
$asked = $_SERVER['REQUEST_TIME_FLOAT'];
echo "ready\n";
flush();
if (isset($_GET['wait'])) {
    sleep(600);
}
