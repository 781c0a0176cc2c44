<?php
// Prints what debug_backtrace() knows of the caller's frames, and blocks on
// the same line: what phpwhy sees must equal it.
function entries(): string
{
    $out = [];
    foreach (array_slice(debug_backtrace(DEBUG_BACKTRACE_IGNORE_ARGS), 1) as $f) {
        $out[] = ['function' => $f['function'], 'class' => explode("\0", $f['class'] ?? '')[0], 'file' => $f['file'] ?? '', 'line' => $f['line'] ?? 0];
    }
    return json_encode($out, JSON_UNESCAPED_SLASHES) . "\n";
}
