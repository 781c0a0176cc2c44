<?php
// Recursion as deep as the environment says.
function descend(int $n): void
{
    if ($n === 0) {
        block();
        return;
    }
    $tail = 1;
    descend($n - 1);
}

function block(): void
{
    echo "[]\n";
    fgets(STDIN);
}

descend((int) getenv('PHPWHY_DEPTH'));
