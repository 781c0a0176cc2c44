<?php
require __DIR__ . '/_block.php';

function load()
{
    include __DIR__ . '/_included.php';
}

load();
