<?php
// Rule wait.pgsql, query phase: the server takes its time over a query.
// PHPWHY_PGSQL is a server's host:port.

function monthlyReport($db): array
{
    return pg_fetch_row(pg_query($db, 'SELECT pg_sleep(600)'));
}

[$host, $port] = explode(':', getenv('PHPWHY_PGSQL'));
$db = pg_connect("host=$host port=$port user=postgres dbname=postgres");

echo "ready\n";
flush();
monthlyReport($db);
