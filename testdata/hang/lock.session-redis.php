<?php
// Two requests of one session, which redis.session.locking_enabled=1 locks.
session_id(md5(getenv('PHPWHY_HANG')));
echo "ready\n";
session_start();
sleep(600);
