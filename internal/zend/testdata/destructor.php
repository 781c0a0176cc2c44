<?php
require __DIR__ . '/_block.php';

class Holder
{
    public function __destruct()
    {
        echo entries(); fgets(STDIN);
    }
}

function scope()
{
    $h = new Holder;
    $h = null;
}

scope();
