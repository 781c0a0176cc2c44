<?php
// Rule cpu.jit-loop: a loop that opcache's JIT compiler has turned into machine
// code and that does not end. PHP 8 with opcache; the script's runner adds
// -d opcache.enable_cli=1 -d opcache.jit=tracing -d opcache.jit_buffer_size=32M.

function rootOf(int $id, array $parent): int
{
    while ($parent[$id] !== 0) {
        $id = $parent[$id];
    }
    return $id;
}

echo "ready\n";
flush();
rootOf(3, [1 => 0, 2 => 3, 3 => 2]);
