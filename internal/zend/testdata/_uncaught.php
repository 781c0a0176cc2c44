<?php

(function () {
    echo entries(); fgets(STDIN);
})->call(new class { public $x = 1; });
