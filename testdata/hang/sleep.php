<?php
// For stacks: a worker that waits in one system call and does nothing else. The
// call ends by itself after ten minutes, should nobody end the worker.

function waitForever(): void
{
    sleep(600);
}

echo "ready\n";
flush();
waitForever();
