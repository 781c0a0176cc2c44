<?php
// An included file changes variables of its includer, whose own copies stay as
// they were until the file ends; and so does one that a function includes.
require __DIR__ . '/_values.php';
$shared = 'before';
$gone = str_repeat('g', 100);
$mine = 1;
frame([], ['shared' => 'after', 'gone' => null, 'mine' => 1, 'added' => 2.5]);

function includes(string $path)
{
    $local = [1];
    frame(['path' => $path], ['local' => [1, 2]]);
    include $path;
}

include __DIR__ . '/_values_included.inc';
$added = 1;
