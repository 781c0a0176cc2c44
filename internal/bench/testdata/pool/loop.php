<?php
for ($i = 0; ; $i++) {
    $x = md5((string) $i);
}
