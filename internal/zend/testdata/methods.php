<?php
// PHP 8.0 or later.
namespace App\Report;

require __DIR__ . '/_block.php';

abstract class Base
{
    public function __construct(private int $n) { $this->run(); }

    abstract protected function run(): void;

    public static function make(): static
    {
        return new static(1);
    }

    public function __call($name, $args)
    {
        return self::stat(...$args);
    }

    private static function stat($x)
    {
        $f = function () use ($x) {
            $g = fn() => (new class {
                public function block(): void
                {
                    echo \entries(); fgets(STDIN);
                }
            })->block();
            $g();
        };

        return $f();
    }
}

final class Daily extends Base
{
    protected function run(): void
    {
        $this->missing(
            42
        );
    }
}

Daily::make();
