<?php
require __DIR__ . '/_values.php';

enum Suit: string { case Hearts = 'H'; }

class Item
{
    public function run(int $n, float $f, ?string $none, bool ...$flags)
    {
        $self = $this;
        frame(['n' => $n, 'f' => $f, 'none' => $none, 'flags' => $flags, 'flags[0]' => $flags[0], 'flags[1]' => $flags[1]], ['self' => $self], [], $this);
        extras(1, 'two', 3.0, null, [1, 2]);
    }
}

function extras($first)
{
    $tmp = "x" . $first;
    frame(['first' => $first, 2 => 'two', 3 => 3.0, 4 => null, 5 => [1, 2]], ['tmp' => $tmp, 'by' => 12, 'list' => [1, 2, 3]]); // as byref() will leave them
    $by = 5;
    $list = [1, [2, 3]];
    byref($by, $list, 'k');
}

function byref(int &$by, array &$list, string $at)
{
    $by += 7;
    $list[$at] = &$list;
    $cyclic = &$list;
    $static = counter();
    frame(['by' => $by, 'list' => $list, 'at' => $at], ['cyclic' => $cyclic, 'static' => $static]);
    strings(str_repeat('a', 1 << 20), "tab\there \"quoted\" back\\slash\nnewline \x1b[31m\x00end", "\xff\xfebinary\x80", "žluťoučký " . str_repeat('é', 40));
}

function counter() { static $n = 41; return ++$n; }

function strings(string $huge, string $odd, string $binary, string $utf8)
{
    $empty = '';
    $one = 'a';
    $edge = str_repeat('e', 64);
    $over = str_repeat('o', 65);
    frame(['huge' => $huge, 'odd' => $odd, 'binary' => $binary, 'utf8' => $utf8], ['empty' => $empty, 'one' => $one, 'edge' => $edge, 'over' => $over]);
    numbers(PHP_INT_MAX, PHP_INT_MIN, -0.0, 1e17, 0.1, INF, NAN, 1e-7, 123456789012345678.0, 1e15);
}

function numbers(...$all)
{
    [$max, $min, $zero, $big, $tenth, $inf, $nan, $tiny, $long, $round] = $all;
    $yes = true;
    $no = false;
    frame(['all' => $all, 'all[0]' => $max, 'all[1]' => $min, 'all[2]' => $zero, 'all[3]' => $big, 'all[4]' => $tenth, 'all[5]' => $inf, 'all[6]' => $nan,
        'all[7]' => $tiny, 'all[8]' => $long, 'all[9]' => $round], ['max' => $max, 'min' => $min, 'zero' => $zero, 'big' => $big, 'tenth' => $tenth,
        'inf' => $inf, 'nan' => $nan, 'tiny' => $tiny, 'long' => $long, 'round' => $round, 'yes' => $yes, 'no' => $no]);
    others(STDIN, Suit::Hearts, function () {}, new class {});
}

function others($res, Suit $suit, Closure $fn, object $anon)
{
    $later = new ArrayObject([1, 2, 3]);
    frame(['res' => $res, 'suit' => $suit, 'fn' => $fn, 'anon' => $anon], ['later' => $later], ['unset', 'never', 'v']);
    unset($unset);
    if (!$later) {
        $never = 1;
    }
    foreach (generator(3) as $v) {
        return;
    }
}

function generator(int $count)
{
    $step = 'first';
    $call = callback(...);
    frame(['count' => $count], ['step' => $step, 'call' => $call]);
    $GLOBALS['call'] = described($call);
    array_map($call, [['nested' => 1]]);
    yield 1;
}

function callback(array $row)
{
    array_unshift($GLOBALS['frames'], [['$callback', 'argument', ...$GLOBALS['call']], ['$array', 'argument', 'array', 'array(1)']]);
    frame(['row' => $row], []);
    finish();
}

$script = 'main';
$object = new Item;
frame([], ['script' => $script, 'object' => $object]);
$object->run(1, 2.5, null, true, false);
