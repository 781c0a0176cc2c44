<?php
spl_autoload_register(function ($class) {
    echo "ready\n";
    sleep(600);
});
new Missing();
