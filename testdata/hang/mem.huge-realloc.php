<?php
// Rule mem.huge-realloc: a whole file is read into memory, and it is one that
// has no end: a device here, a log that is being written to or a FIFO elsewhere.
// Needs -d memory_limit=-1; grows by more than a GB/s until memory is exhausted
// and then begins anew, which a filter in between slows down.

function readAll(string $path): int
{
    return strlen(stream_get_contents(fopen($path, 'r')));
}

echo "ready\n";
flush();
readAll('php://filter/read=string.rot13|string.toupper|convert.base64-encode/resource=/dev/zero');
