<?php
// What must not be shown, under whatever name it goes.
require __DIR__ . '/_values.php';

class Vault
{
    public function open(#[SensitiveParameter] string $first, int $second, #[SensitiveParameter] string ...$others)
    {
        $password = 'correct horse battery';
        $copy = $password;
        $line = "mysql -uroot -p$password db";
        $apiKey = 123456789;
        $monkey = 'a banana';
        $tokens = [1, 2];
        $url = 'https://user:hunter2@example.org/';
        $dsn = null;
        $seen = &$password;
        check($password, ['nested' => $password]);
    }
}

function check(string $text, array $list)
{
    array_map('strtoupper', [1]);
    password_verify_now($text);
}

function password_verify_now($text)
{
    preg_replace_callback('/c/', function ($m) use ($text) {
        echo json_encode([]), "\n"; fgets(STDIN, 77);
        return '';
    }, $text);
}

(new Vault)->open('marked one', 2, 'marked two', 'marked three');
