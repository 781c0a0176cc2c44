<?php
// Rule wait.child-process: sendmail takes the letter and does not end. Needs
// -d sendmail_path="sleep 60".

function order(): void
{
    mail('shop@example.org', 'Order 7', 'One chair.');
}

echo "ready\n";
flush();
order();
