<?php
echo "ready\n";
shell_exec('sleep 60; echo done');
