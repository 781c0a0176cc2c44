<?php
require __DIR__ . '/_block.php';

function outer($n)
{
    if ($n > 0) {
        outer(
            $n - 1
        );
        return;
    }
    inner();
}

function inner()
{
    echo entries(); fgets(STDIN);
}

outer(5);
