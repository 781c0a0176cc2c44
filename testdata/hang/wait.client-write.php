<?php
echo "ready\n";
flush();
for ($row = 0; ; $row++) {
    echo str_repeat("$row ", 10000);
}
