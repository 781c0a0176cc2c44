<?php
// Rule mem.recursion: a filter on a title asks for the title, which is filtered.
// Three functions call each other, so none of them is all of the stack. Otherwise
// like mem.recursion.php. Needs -d memory_limit=-1.

const LEVELS = 1500000;

final class Hooks
{
    private array $filters = [];

    public function add(string $hook, callable $filter): void
    {
        $this->filters[$hook][] = $filter;
    }

    public function apply(string $hook, string $value, int $depth): string
    {
        foreach ($this->filters[$hook] as $filter) {
            $value = $filter($value, $depth);
        }
        return $value;
    }
}

function title(int $depth): string
{
    global $hooks;
    if ($depth % 1000 === 0) {
        usleep(10000);
    }
    return $depth >= LEVELS ? '' : $hooks->apply('title', 'Home', $depth + 1);
}

$hooks = new Hooks();
$hooks->add('title', function (string $value, int $depth): string {
    return "$value: " . title($depth); // was meant to ask for the parent's
});

echo "ready\n";
flush();
for (;;) {
    title(1);
}
