<?php
// A destructor that runs while an exception unwinds the function that held
// the object: its opline is the engine's own, not one of the function's.
require __DIR__ . '/_block.php';

class Guard
{
    public function __destruct()
    {
        echo entries(); fgets(STDIN);
    }
}

function thrower($g)
{
    $a = 1;
    throw new LogicException(
        'x'
    );
}

function holds()
{
    $g = new Guard;
    thrower(1);
    $b = 2;
}

try {
    holds();
} catch (LogicException $e) {
}
