<?php
// Rule cpu.password-hash: a password is hashed at a cost that was set too high:
// each step doubles the time, 10 take some 50 ms, 24 take a quarter of an hour.

function register(string $password): string
{
    return password_hash($password, PASSWORD_BCRYPT, ['cost' => 24]);
}

echo "ready\n";
flush();
register('correct horse battery staple');
