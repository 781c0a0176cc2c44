<?php
// Collects cycles without end: a large structure that never becomes garbage
// is gone through each time.
class Node
{
    public $next;
}
$first = $last = new Node;
for ($i = 0; $i < 200000; $i++) {
    $last = $last->next = new Node;
}
$last->next = $first;
echo "ready\n";
while (true) {
    $copy = $first;
    unset($copy);
    gc_collect_cycles();
}
