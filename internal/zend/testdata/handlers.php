<?php
// Calls that the engine makes by itself.
require __DIR__ . '/_block.php';

class Box implements ArrayAccess, IteratorAggregate, Countable
{
    #[ReturnTypeWillChange]
    public function offsetExists($o) { return true; }
    #[ReturnTypeWillChange]
    public function offsetSet($o, $v) {}
    #[ReturnTypeWillChange]
    public function offsetUnset($o) {}
    #[ReturnTypeWillChange]
    public function offsetGet($o)
    {
        return "{$this}";
    }

    #[ReturnTypeWillChange]
    public function count() { return $this['x'] !== null ? 1 : 0; }

    public function __toString()
    {
        foreach ($this as $v) {
        }
        return '';
    }

    #[ReturnTypeWillChange]
    public function getIterator()
    {
        spl_autoload_register(static function ($class) {
            echo $undefined;
        });
        return new Missing;
    }
}

set_error_handler(function ($no, $text) {
    ob_start(function ($s) {
        return strtoupper($s);
    });
    echo str_repeat('x', 3);
    ob_end_clean();
    echo entries(); fgets(STDIN);
    return true;
});

function start()
{
    return count(
        new Box
    );
}

start();
