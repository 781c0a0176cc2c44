<?php
namespace App\Report;

require __DIR__ . '/_block.php';

trait Greets
{
    public function hello($x)
    {
        return $this->missing(
            $x
        );
    }
}

abstract class Base
{
    protected static $made;

    abstract protected function run();

    public static function make()
    {
        return static::$made = new static;
    }

    public function __construct()
    {
        $this->run();
    }

    public function __call($name, $args)
    {
        return self::stat($args[0]);
    }

    public static function __callStatic($name, $args)
    {
        $f = function ($x) {
            $g = static function () {
                echo \entries(); fgets(STDIN);
            };
            $g();
        };

        return $f(1);
    }

    public function __get($name)
    {
        return outside($name);
    }

    private static function stat($x)
    {
        return "x" . $x->property;
    }
}

final class Daily extends Base
{
    use Greets;

    protected function run()
    {
        call_user_func(array($this, 'hello'), $this);
    }
}

function outside($name)
{
    return Daily::unknown($name);
}

Daily::make();
