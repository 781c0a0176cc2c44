<?php
// Every frame says of itself what its variables are, in phpwhy's words, and the
// innermost one prints all of that and blocks. Frames are collected innermost
// first.
function text(string $s): string
{
    $cut = strlen($s) > 64;
    $out = '';
    $shown = substr($s, 0, 64);
    while ($cut && !preg_match('//u', $shown) && preg_match('//u', $s)) {
        $shown = substr($shown, 0, -1);
    }
    foreach (preg_match('//u', $shown) ? preg_split('//u', $shown, -1, PREG_SPLIT_NO_EMPTY) : str_split($shown) as $c) {
        $out .= match (true) {
            $c === '"', $c === '\\' => '\\' . $c,
            $c === "\n" => '\n',
            $c === "\t" => '\t',
            $c === "\r" => '\r',
            strlen($c) > 1 => $c,
            ord($c) < 32 || ord($c) > 126 => sprintf('\x%02x', ord($c)),
            default => $c,
        };
    }
    return '"' . $out . ($cut ? '…" (' . number_format(strlen($s)) . ' bytes)' : '"');
}

function described(mixed $v): array
{
    return match (true) {
        is_null($v) => ['null', 'null'],
        is_bool($v) => ['bool', var_export($v, true)],
        is_int($v) => ['int', (string) $v],
        is_float($v) => ['float', var_export($v, true)],
        is_string($v) => ['string', text($v)],
        is_array($v) => ['array', 'array(' . count($v) . ')'],
        is_object($v) => ['object', 'object(' . explode("\0", $v::class)[0] . ')#' . spl_object_id($v)],
        default => ['resource', 'resource(' . get_resource_id($v) . ')'],
    };
}

$GLOBALS['frames'] = [];

// frame adds one frame: names with their values, and those that are undefined.
// Nothing but the frame's own order of variables is left to the caller.
function frame(array $arguments, array $variables, array $undefined = [], ?object $this_ = null): void
{
    $list = $this_ ? [['$this', 'this', ...described($this_)]] : [];
    foreach (['argument' => $arguments, 'variable' => $variables] as $kind => $values) {
        foreach ($values as $name => $v) {
            $list[] = [is_int($name) ? "#$name" : "\$$name", $kind, ...described($v)];
        }
    }
    foreach ($undefined as $name) {
        $list[] = ["\$$name", 'variable', 'undef', 'undefined'];
    }
    array_unshift($GLOBALS['frames'], $list);
}

// finish prints what has been collected, and blocks.
function finish()
{
    $f = $GLOBALS['frames'];
    array_unshift($f, [['$f', 'variable', 'array', 'array(' . (count($f) + 2) . ')']]);
    array_unshift($f, [['$stream', 'argument', ...described(STDIN)], ['$length', 'argument', 'int', '77']]);
    echo json_encode($f, JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_UNICODE), "\n"; fgets(STDIN, 77);
}
