<?php
// Many short queries, and nothing else: PHPWHY_MYSQL is a server's host:port.
[$host, $port] = explode(':', getenv('PHPWHY_MYSQL'));
$db = new mysqli($host, 'phpwhy', '', '', (int) $port);
echo "ready\n";
flush();
while (true) {
    $db->query('SELECT SLEEP(0.04)');
}
