<?php
// _busy.php for PHP 5.6 on: without fibers and delegation.
//: {main} > round_of = round_of(
//: {main} > microtime = microtime(
//: round_of > down = down(
//: down > down = down(
//: down > bottom = bottom(
//: bottom > str_repeat = str_repeat(
//: bottom > md5 = md5(
//: bottom > fail = fail(
//: fail > Exception::__construct = new Exception
//: round_of > sorted = sorted(
//: sorted > usort = usort(
//: sorted > array_map = array_map(
//: usort > {closure} = spaceship
//: array_map > {closure} = twice
//: {closure} > strrev = strrev(
//: round_of > Magic::__construct = new Magic
//: round_of > Magic::__call = ->anything(
//: round_of > Magic::anything = ->anything(
//: Magic::anything > Magic::__call = ?
//: Magic::__call > implode = implode(
//: round_of > Magic::__toString = (string)
//: Magic::__toString > str_repeat = str_repeat(
//: round_of > counted = counted(
//: counted > inner = yields
//: inner > md5 = md5(
//: inner > leaf = leaf(
//: leaf > strrev = strrev(
//: round_of > stepped = stepped(
//: stepped > receiver = receiver(
//: stepped > Generator::current = ->current(
//: stepped > Generator::send = ->send(
//: stepped > Generator::valid = ->valid(
//: Generator::current > receiver = ?
//: Generator::send > receiver = ?
//: Generator::valid > receiver = ?
//: receiver > leaf = leaf(
//: round_of > closures = closures(
//: closures > {closure} = $made
//: {closure} > leaf = leaf(
//: {closure} > bottom = bottom(
class Magic
{
    private $n;

    public function __construct($n)
    {
        $this->n = $n;
    }

    public function __call($name, $args)
    {
        return implode(',', $args);
    }

    public function __toString()
    {
        return str_repeat('m', $this->n);
    }
}

function round_of($n)
{
    down($n % 40);
    sorted($n);
    $m = new Magic($n % 9 + 1);
    $m->anything($n, 2, 3);
    $s = (string) $m;
    counted($n);
    stepped();
    closures($n);
}

function down($n)
{
    if ($n > 0) {
        return down($n - 1) + 1;
    }
    return bottom($n);
}

function bottom($n)
{
    $s = str_repeat('x', 100);
    $h = md5($s);
    try {
        fail($n);
    } catch (Exception $e) {
        return 1;
    }
    return 0;
}

function fail($n)
{
    throw new Exception('no');
}

function sorted($n)
{
    $a = array(3, 1, $n, 2);
    $less = function ($x, $y) {
        return $x < $y ? -1 : 1;
    };
    usort($a, $less);
    $twice = function ($x) {
        return strrev($x . 'twice');
    };
    return array_map($twice, $a);
}

function inner($n)
{
    for ($i = 0; $i < $n; $i++) {
        $h = md5('inner');
        yield leaf($i);
    }
}

function leaf($n)
{
    return strrev('leaf' . $n);
}

function counted($n)
{
    $c = 0;
    foreach (inner($n % 5 + 1) as $v) { // yields
        $c++;
    }
    return $c;
}

function receiver()
{
    for ($i = 0; $i < 4; $i++) {
        $got = (yield leaf($i));
    }
}

function stepped()
{
    $g = receiver();
    $v = $g->current();
    while ($g->valid()) {
        $v = $g->send('x');
    }
}

function closures($n)
{
    $made = function ($x) { // first
        return leaf($x);
    };
    $made($n);
    $made = function ($x) { // second
        return bottom($x);
    };
    $made($n);
}

echo "ready\n";
for ($n = 0; microtime(true) > 0; $n++) {
    round_of($n);
}
