<?php
// PHP 8.1 or later.
require __DIR__ . '/_block.php';

trait Greets
{
    public function hello($x)
    {
        echo entries(); fgets(STDIN);
    }

    public static function __callStatic($name, $args)
    {
        (new static)->welcome($args[0]);
    }

    public function __invoke($x)
    {
        $call = $this->hello(...);
        $call($x);
    }
}

class Host
{
    use Greets { hello as protected greet; hello as public salute; }

    public function welcome($x)
    {
        $f = $this->salute(...);
        iterator_apply(new ArrayIterator([1]), $f, [$x]);
    }
}

array_map('Host::unknown', [1]);
