<?php
// Rule wait.mysql, query phase: a row is locked by a transaction that somebody
// else has left open. PHPWHY_MYSQL is a server's host:port.

function connect(): PDO
{
    [$host, $port] = explode(':', getenv('PHPWHY_MYSQL'));
    return new PDO("mysql:host=$host;port=$port;dbname=test", 'phpwhy', '');
}

function book(PDO $db, int $id): void
{
    $update = $db->prepare('UPDATE seats SET taken = taken + 1 WHERE id = ?');
    $update->execute([$id]);
}

$other = connect();
$other->exec('CREATE TABLE IF NOT EXISTS seats (id INT PRIMARY KEY, taken INT) ENGINE=InnoDB');
$other->exec('REPLACE INTO seats VALUES (7, 0)');
$other->beginTransaction();
book($other, 7);

$db = connect();
$db->exec('SET innodb_lock_wait_timeout = 600');
echo "ready\n";
flush();
book($db, 7);
