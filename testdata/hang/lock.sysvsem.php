<?php
// Started twice: the first one keeps the semaphore.
$sem = sem_get(crc32(getenv('PHPWHY_HANG')));
echo "ready\n";
sem_acquire($sem);
sleep(600);
