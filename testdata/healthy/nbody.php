<?php
// Healthy: planets, in two functions and with objects.

class Body
{
    public $x;
    public $y;
    public $vx = 0.0;
    public $vy = 0.0;
    public $mass;

    public function __construct(float $x, float $y, float $mass)
    {
        $this->x = $x;
        $this->y = $y;
        $this->mass = $mass;
    }

    public function attract(Body $o, float $dt): void
    {
        $dx = $o->x - $this->x;
        $dy = $o->y - $this->y;
        $d2 = $dx * $dx + $dy * $dy + 0.01;
        $mag = $dt / ($d2 * sqrt($d2));
        $this->vx += $dx * $o->mass * $mag;
        $this->vy += $dy * $o->mass * $mag;
    }
}

function advance(array $bodies, float $dt): void
{
    foreach ($bodies as $a) {
        foreach ($bodies as $b) {
            if ($a !== $b) {
                $a->attract($b, $dt);
            }
        }
    }
    foreach ($bodies as $a) {
        $a->x += $dt * $a->vx;
        $a->y += $dt * $a->vy;
    }
}

$bodies = [];
for ($i = 0; $i < 20; $i++) {
    $bodies[] = new Body(cos($i), sin($i), 1.0 + $i % 3);
}
echo "ready\n";
flush();
for (;;) {
    advance($bodies, 0.001);
}
