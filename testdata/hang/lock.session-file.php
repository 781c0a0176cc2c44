<?php
// Two requests of one session: the second waits until the first ends.
session_id(md5(getenv('PHPWHY_HANG')));
echo "ready\n";
flush();
session_start();
sleep(600);
