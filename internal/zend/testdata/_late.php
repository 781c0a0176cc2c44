<?php
// Recurses as deep as the environment says in a shutdown function, with
// output held back.
function descend(int $n): void
{
    if ($n === 0) {
        ob_start();
        echo str_repeat('x', 2 << 20);
        fputs(STDOUT, "[]\n");
        fgets(STDIN);
        return;
    }
    descend($n - 1);
}

register_shutdown_function(function () {
    ini_set('memory_limit', '-1');
    descend((int) getenv('PHPWHY_DEPTH'));
});
