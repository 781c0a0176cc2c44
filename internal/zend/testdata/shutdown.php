<?php
require __DIR__ . '/_block.php';

function last()
{
    echo entries(); fgets(STDIN);
}

register_shutdown_function('last');
