<?php
// Prints what debug_backtrace() knows of the caller's frames as one line of
// JSON, and blocks on the same line: what phpwhy sees must equal it. Runs on
// every PHP from 5.6 on, also on one without the json extension.
function entries()
{
    $out = array();
    foreach (array_slice(debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS), 1) as $f) {
        $class = explode("\0", isset($f['class']) ? $f['class'] : '');
        $out[] = sprintf('{"function":%s,"class":%s,"file":%s,"line":%d}', quoted($f['function']), quoted($class[0]),
            quoted(isset($f['file']) ? $f['file'] : ''), isset($f['line']) ? $f['line'] : 0);
    }
    return '[' . implode(',', $out) . "]\n";
}

function quoted($s)
{
    return '"' . addcslashes($s, '"\\') . '"';
}
