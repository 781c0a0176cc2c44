<?php
for ($i = 0; $i < 200; $i++) {
    $rows[] = ['id' => $i, 'name' => md5((string) $i)];
}
echo strlen(json_encode($rows));
