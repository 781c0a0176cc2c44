<?php
function wait_for_export()
{
    sleep(600);
}
echo "ready\n";
wait_for_export();
