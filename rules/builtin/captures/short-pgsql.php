<?php
// Many short queries, and nothing else: PHPWHY_PGSQL is a server's host:port.
[$host, $port] = explode(':', getenv('PHPWHY_PGSQL'));
$db = pg_connect("host=$host port=$port user=postgres dbname=postgres");
echo "ready\n";
flush();
while (true) {
    pg_query($db, 'SELECT pg_sleep(0.04)');
}
