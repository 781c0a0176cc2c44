<?php
require __DIR__ . '/_block.php';

function inner()
{
    yield 1;
    echo entries(); fgets(STDIN);
    yield 2;
}

function outer()
{
    yield 0;
    foreach (inner() as $v) {
        yield $v;
    }
}

foreach (outer() as $v) {
    $last = $v;
}
