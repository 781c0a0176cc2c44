<?php
require __DIR__ . '/_block.php';

function risky()
{
    try {
        throw new RuntimeException('x');
    } catch (RuntimeException $e) {
        handler($e);
    } finally {
        $done = true;
    }
}

function handler($e)
{
    echo entries(); fgets(STDIN);
}

risky();
