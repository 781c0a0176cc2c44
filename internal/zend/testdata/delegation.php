<?php
// "yield from" runs the innermost generator alone; the ones that delegate to
// it stand in the backtrace nevertheless. PHP 7.0 or later.
require __DIR__ . '/_block.php';

function leaf()
{
    yield 1;
    echo entries(); fgets(STDIN);
    yield 2;
}

class Chain
{
    public function middle()
    {
        yield from leaf();
    }

    public function outer()
    {
        $n = 1;
        yield from
            $this->middle();
    }
}

function consume($list)
{
    foreach ($list as $v) {
        $last = $v;
    }
}

consume((new Chain)->outer());
