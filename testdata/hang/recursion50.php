<?php
// For stacks: fifty calls of one function, then a wait. Exactly fifty frames of
// descend, then main, must be seen. The wait ends after ten minutes.

function descend(int $level): int
{
    if ($level === 50) {
        sleep(600);
        return 0;
    }
    return 1 + descend($level + 1);
}

echo "ready\n";
flush();
descend(1);
