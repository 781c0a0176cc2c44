<?php
// Near-miss of mem.huge-realloc: 12 MiB are read into memory, and that is all.

function readSome(string $path): int
{
    return strlen(stream_get_contents(fopen($path, 'r'), 12582912));
}

echo "ready\n";
flush();
for (;;) {
    readSome('php://filter/read=string.rot13/resource=/dev/zero');
}
