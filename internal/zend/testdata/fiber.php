<?php
// A fiber that was suspended once. PHP 8.1 or later.
require __DIR__ . '/_block.php';

function inFiber(int $n)
{
    Fiber::suspend($n);
    echo entries(); fgets(STDIN);
}

function drive()
{
    $f = new Fiber(function () {
        inFiber(1);
    });
    $f->start();
    $f->resume();
}

drive();
