<?php
// Rule mem.string-concat: two large texts that are appended to in turn. Each is in the
// other's way, so that neither grows in place for long: mostly they are copied whole,
// and mremap and mmap are hardly entered. Needs -d memory_limit=-1.

function export(array $rows): array
{
    $names = $values = str_repeat("0123456789abcdef", 9 << 20);
    while (true) { // was meant to stop at the last row
        foreach ($rows as $name => $value) {
            $names .= $name;
            $values .= $value;
        }
    }
    return [$names, $values];
}

echo "ready\n";
flush();
export([str_repeat("name;", 200000) => str_repeat("value;", 200000)]);
