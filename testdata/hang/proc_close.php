<?php
$process = proc_open(['sleep', '60'], [], $pipes);
echo "ready\n";
proc_close($process);
