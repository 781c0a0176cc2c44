<?php
// Rule wait.child-process: a program is given more than a pipe holds and does not
// read it.

function convert(string $image): void
{
    $program = proc_open(['sleep', '60'], [['pipe', 'r'], ['pipe', 'w']], $pipes);
    fwrite($pipes[0], $image);
    echo stream_get_contents($pipes[1]);
    proc_close($program);
}

echo "ready\n";
flush();
convert(str_repeat('x', 1000000));
