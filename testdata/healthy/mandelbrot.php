<?php
// Healthy: a picture is computed, in one function.

function mandelbrot(int $w, int $h, int $max): int
{
    $sum = 0;
    for ($y = 0; $y < $h; $y++) {
        for ($x = 0; $x < $w; $x++) {
            $cr = 2.0 * $x / $w - 1.5;
            $ci = 2.0 * $y / $h - 1.0;
            $zr = $zi = $i = 0;
            while ($zr * $zr + $zi * $zi < 4.0 && $i++ < $max) {
                $t = $zr * $zr - $zi * $zi + $cr;
                $zi = 2.0 * $zr * $zi + $ci;
                $zr = $t;
            }
            $sum += $i;
        }
    }
    return $sum;
}

echo "ready\n";
flush();
for (;;) {
    mandelbrot(600, 400, 50);
}
