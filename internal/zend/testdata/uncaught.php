<?php
// PHP 7.0 or later.
require __DIR__ . '/_block.php';

set_exception_handler(static function (Throwable $e) {
    require '_uncaught.php';
});

function fails()
{
    throw new Error('x');
}

fails();
