<?php
// Healthy: trees with links to the parent are made and dropped, which the cycle
// collector has to clean up now and then.

class Node
{
    public $parent;
    public $children = [];

    public function add(): Node
    {
        $child = new Node();
        $child->parent = $this;
        return $this->children[] = $child;
    }
}

function tree(Node $node, int $depth): int
{
    if ($depth === 0) {
        return 1;
    }
    $n = 1;
    for ($i = 0; $i < 3; $i++) {
        $n += tree($node->add(), $depth - 1);
    }
    return $n;
}

echo "ready\n";
flush();
for (;;) {
    tree(new Node(), 6);
}
