<?php
// Rule cpu.linear-search: "have I seen this already?" is asked of a list instead
// of a table's keys, so that each question looks at all elements.

function unique(int $n): array
{
    $seen = [];
    for ($i = 0; $i < $n; $i++) {
        $id = "customer-$i";
        if (!in_array($id, $seen, true)) {
            $seen[] = $id;
        }
    }
    return $seen;
}

echo "ready\n";
flush();
for (;;) {
    unique(200000);
}
