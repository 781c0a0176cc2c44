<?php
// Healthy: a login now and then, and other work in between.

function login(string $hash): bool
{
    return password_verify('secret', $hash);
}

$hash = password_hash('secret', PASSWORD_BCRYPT, ['cost' => 10]);
echo "ready\n";
flush();
for (;;) {
    login($hash);
    usleep(200000);
}
