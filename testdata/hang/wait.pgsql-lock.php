<?php
// Rule wait.pgsql, query phase: a lock is held by a session that somebody else
// has left open. PHPWHY_PGSQL is a server's host:port.

function connect(): PDO
{
    [$host, $port] = explode(':', getenv('PHPWHY_PGSQL'));
    return new PDO("pgsql:host=$host;port=$port;user=postgres;dbname=postgres");
}

function lock(PDO $db, int $id): void
{
    $lock = $db->prepare('SELECT pg_advisory_lock(?)');
    $lock->execute([$id]);
}

$other = connect();
lock($other, 7);
$db = connect();

echo "ready\n";
flush();
lock($db, 7);
