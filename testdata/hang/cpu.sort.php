<?php
// Rule cpu.sort: a list is sorted again for each element that is added to it, with
// a comparison in PHP.

class Queue
{
    private $jobs = [];

    public function add(int $priority): void
    {
        $this->jobs[] = ['priority' => $priority, 'name' => "job $priority"];
        usort($this->jobs, 'Queue::compare');
        if (count($this->jobs) > 20000) {
            $this->jobs = [];
        }
    }

    public static function compare(array $a, array $b): int
    {
        return $a['priority'] <=> $b['priority'];
    }
}

mt_srand(1);
$queue = new Queue();
for ($i = 0; $i < 1000; $i++) {
    $queue->add(mt_rand());
}
echo "ready\n";
flush();
for (;;) {
    $queue->add(mt_rand());
}
