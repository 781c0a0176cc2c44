<?php
require __DIR__ . '/_block.php';

function outer(int $n): void
{
    if ($n > 0) {
        outer(
            $n - 1
        );
        return;
    }
    inner();
}

function inner(): void
{
    echo entries(); fgets(STDIN);
}

outer(5);
