<?php
class Connection
{
    public function __destruct()
    {
        echo "ready\n";
        usleep(600000000);
    }
}
$connection = new Connection();
$connection = null;
