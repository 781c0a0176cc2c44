<?php
set_time_limit(0);
for ($i = 0; ; $i++) {
    $x = md5((string) $i);
}
