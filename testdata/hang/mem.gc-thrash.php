<?php
// Rule mem.gc-thrash: many objects are alive and reachable, and each unit of work
// leaves a cycle behind. After each 10,000 possible roots the cycle collector
// walks all of them again and finds a little.

class Node
{
    public $parent;
    public $children = [];
}

class Importer
{
    private $live = [];

    public function load(): void
    {
        $root = new Node();
        for ($i = 0; $i < 300000; $i++) {
            $node = new Node();
            $node->parent = $root;
            $root->children[] = $node;
            $this->live[] = $node;
        }
    }

    public function run(): void
    {
        for ($i = 0;; $i++) {
            $seen = $this->live[$i % 300000]; // becomes a possible root again
            $row = new Node();
            $row->parent = $row;
            unset($row, $seen);
        }
    }
}

$importer = new Importer();
$importer->load();
echo "ready\n";
flush();
$importer->run();
