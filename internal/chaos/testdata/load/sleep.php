<?php
usleep(5000);
echo "ok\n";
