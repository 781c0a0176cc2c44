<?php
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
