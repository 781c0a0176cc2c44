<?php
// Rule wait.mysql, query phase: the server takes its time over a query.
// PHPWHY_MYSQL is a server's host:port.

function monthlyReport(mysqli $db): array
{
    return $db->query('SELECT SLEEP(600)')->fetch_row();
}

[$host, $port] = explode(':', getenv('PHPWHY_MYSQL'));
$db = new mysqli($host, 'phpwhy', '', '', (int) $port);

echo "ready\n";
flush();
monthlyReport($db);
