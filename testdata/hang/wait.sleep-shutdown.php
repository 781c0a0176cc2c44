<?php
register_shutdown_function(function () {
    echo "ready\n";
    sleep(600);
});
