<?php
// Rule mem.array-merge-loop: pages of a result are merged into one array, which
// copies all of it for each page. At 400,000 elements it begins anew, so that it
// runs for as long as needed.

function fetchPage(int $page): array
{
    return range(20 * $page, 20 * $page + 19);
}

function fetchAll(): array
{
    $all = [];
    for ($page = 0; $page < 20000; $page++) {
        $all = array_merge($all, fetchPage($page));
    }
    return $all;
}

echo "ready\n";
flush();
for (;;) {
    fetchAll();
}
