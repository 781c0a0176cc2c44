<?php
// Calls all that PHP has in the way of calls, as fast as it can. Each line
// below says which frame may stand right above which other, and what the
// caller's line then has in it: a sample that shows anything else was torn.
// Magic::anything is __call's caller, which PHP makes up. PHP 8.1 or later.
//: {main} > round_of = round_of(
//: {main} > hrtime = hrtime(
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
//: Magic::__call > implode = implode(
//: round_of > Magic::__toString = (string)
//: Magic::__toString > str_repeat = str_repeat(
//: round_of > counted = counted(
//: counted > outer = yields
//: counted > middle = yields
//: counted > inner = yields
//: outer > middle = yield from
//: outer > inner = yield from
//: middle > inner = yield from
//: inner > md5 = md5(
//: inner > leaf = leaf(
//: leaf > strrev = strrev(
//: outer > leaf = leaf(
//: round_of > stepped = stepped(
//: stepped > receiver = receiver(
//: stepped > Generator::current = ->current(
//: stepped > Generator::send = ->send(
//: stepped > Generator::valid = ->valid(
//: Generator::current > receiver = ?
//: Generator::send > receiver = ?
//: Generator::valid > receiver = ?
//: receiver > leaf = leaf(
//: round_of > fibers = fibers(
//: fibers > Fiber::__construct = new Fiber
//: fibers > Fiber::start = ->start(
//: fibers > Fiber::resume = ->resume(
//: fibers > Fiber::isTerminated = ->isTerminated(
//: Fiber::start > fiber_body = ?
//: Fiber::resume > fiber_body = ?
//: fiber_body > Fiber::suspend = Fiber::suspend(
//: fiber_body > down = down(
//: round_of > closures = closures(
//: closures > {closure} = $made
//: {closure} > leaf = leaf(
//: {closure} > bottom = bottom(
class Magic
{
    public function __construct(private int $n)
    {
    }

    public function __call(string $name, array $args): string
    {
        return implode(',', $args);
    }

    public function __toString(): string
    {
        return str_repeat('m', $this->n);
    }
}

function round_of(int $n): void
{
    down($n % 40);
    sorted($n);
    $m = new Magic($n % 9 + 1);
    $m->anything($n, 2, 3);
    $s = (string) $m;
    counted($n);
    stepped();
    fibers();
    closures($n);
}

function down(int $n): int
{
    if ($n > 0) {
        return down($n - 1) + 1;
    }
    return bottom($n);
}

function bottom(int $n): int
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

function fail(int $n): void
{
    throw new Exception('no');
}

function sorted(int $n): array
{
    $a = [3, 1, $n, 2];
    usort($a, function ($x, $y) { // spaceship
        return $x <=> $y;
    });
    return array_map(function ($x) { // twice
        return strrev($x . 'twice');
    }, $a);
}

function inner(int $n)
{
    for ($i = 0; $i < $n; $i++) {
        $h = md5('inner');
        yield leaf($i);
    }
    return 1;
}

function middle(int $n)
{
    $r = yield from inner($n);
    return $r + 1;
}

function outer(int $n)
{
    yield leaf(0);
    $r = yield from middle($n);
    yield leaf($r);
}

function leaf(int $n): string
{
    return strrev('leaf' . $n);
}

function counted(int $n): int
{
    $c = 0;
    foreach (outer($n % 5 + 1) as $v) { // yields
        $c++;
    }
    return $c;
}

function receiver()
{
    for ($i = 0; $i < 4; $i++) {
        $got = yield leaf($i);
    }
}

function stepped(): void
{
    $g = receiver();
    $v = $g->current();
    while ($g->valid()) {
        $v = $g->send('x');
    }
}

function fiber_body(int $n): void
{
    for ($i = 0; $i < 3; $i++) {
        Fiber::suspend($i);
        down(3);
    }
}

function fibers(): void
{
    $f = new Fiber('fiber_body');
    $f->start(1);
    while (!$f->isTerminated()) {
        $f->resume();
    }
}

function closures(int $n): void
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
for ($n = 0; hrtime(true) > 0; $n++) {
    round_of($n);
}
