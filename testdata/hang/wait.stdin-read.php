<?php
echo "ready\n";
while (($line = fgets(STDIN)) !== false) {
    echo $line;
}
