<?php
// For stacks: internal functions between user frames, three deep and two kinds
// of callable: array_map -> closure -> array_walk -> method -> usleep, without end.

class Exporter
{
    public function each(&$value, $key): void
    {
        for (;;) {
            usleep(1000);
        }
    }

    public static function rows(array $rows): array
    {
        return array_map(function (array $row): array {
            array_walk($row, [new self(), 'each']);
            return $row;
        }, $rows);
    }
}

echo "ready\n";
flush();
Exporter::rows([['a' => 1]]);
