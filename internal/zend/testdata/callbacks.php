<?php
require __DIR__ . '/_block.php';

class Sorter
{
    public function compare($a, $b)
    {
        array_map([__CLASS__, 'each'], [1]);
        return $a - $b;
    }

    public static function each($x)
    {
        call_user_func_array('deepest', [$x]);
    }
}

function deepest($x)
{
    echo entries(); fgets(STDIN);
}

$list = [3, 2, 1];
usort($list, function ($a, $b) {
    $s = new Sorter;
    return $s->compare($a, $b);
});
