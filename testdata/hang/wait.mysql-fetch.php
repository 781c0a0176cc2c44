<?php
// Rule wait.mysql, fetch phase: the first rows have come, the next one takes
// its time. PHPWHY_MYSQL is a server's host:port.

function export(mysqli $db): int
{
    $bytes = 0;
    $rows = $db->query("SELECT REPEAT('x', 200000), IF(seq > 3, SLEEP(600), 0) FROM seq_1_to_9", MYSQLI_USE_RESULT);
    while ($row = $rows->fetch_row()) {
        $bytes += strlen($row[0]);
    }
    return $bytes;
}

[$host, $port] = explode(':', getenv('PHPWHY_MYSQL'));
$db = new mysqli($host, 'phpwhy', '', 'test', (int) $port);

echo "ready\n";
flush();
export($db);
