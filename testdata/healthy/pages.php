<?php
// Healthy: pages of some 100 KB are put together, by appending and by
// interpolation, and each comes to an end.

function page(int $rows): string
{
    $html = '<table>';
    for ($i = 0; $i < $rows; $i++) {
        $cell = "row $i";
        $cell = "<td>$cell</td>";
        $html .= "<tr>$cell<td>" . htmlspecialchars("a & b $i") . '</td></tr>';
    }
    return "$html</table>";
}

echo "ready\n";
flush();
for (;;) {
    md5(page(2000));
}
