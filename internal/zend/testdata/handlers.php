<?php
require __DIR__ . '/_block.php';

class Box implements ArrayAccess, IteratorAggregate, Countable
{
    public function offsetExists(mixed $o): bool { return true; }
    public function offsetSet(mixed $o, mixed $v): void {}
    public function offsetUnset(mixed $o): void {}
    public function offsetGet(mixed $o): mixed
    {
        return "{$this}";
    }

    public function count(): int { return $this['x'] !== null ? 1 : 0; }

    public function __toString(): string
    {
        foreach ($this as $v) {
        }
        return '';
    }

    public function getIterator(): Iterator
    {
        spl_autoload_register(static function (string $class): void {
            echo $undefined;
        });
        return new Missing;
    }
}

set_error_handler(function ($no, $text) {
    ob_start(function (string $s): string {
        return strtoupper($s);
    });
    echo json_decode('[1]')[0];
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
