<?php
// Makes the engine's state differ from what it begins with, says what it is,
// and blocks: in the main script, or where $PHPWHY_PHASE says. Runs on every
// PHP from 5.6 on.
class Node
{
    public $self;
    public $last = false;

    public function __destruct()
    {
        if ($this->last) {
            say();
        }
    }
}

function garbage($n)
{
    for ($i = 0; $i < $n; $i++) {
        $a = new Node;
        $a->self = $a;
    }
}

// json_encode is an extension before PHP 8.
function say()
{
    ob_start();
    ob_start();
    echo str_repeat('x', 3 << 20);
    $gc = function_exists('gc_status') ? gc_status() : array('runs' => -1, 'collected' => -1, 'roots' => -1, 'threshold' => -1);
    $ob = ob_get_status();
    $time = isset($gc['collector_time']) ? $gc['collector_time'] : -1;
    fputs(STDOUT, sprintf('{"runs":%d,"collected":%d,"roots":%d,"threshold":%d,"enabled":%s,"level":%d,"size":%d,"used":%d,"time":%.9f}' . "\n",
        $gc['runs'], $gc['collected'], $gc['roots'], $gc['threshold'], gc_enabled() ? 'true' : 'false',
        ob_get_level(), $ob['buffer_size'], $ob['buffer_used'], $time));
    fgets(STDIN);
}

function descend($n)
{
    if ($n > 0) {
        descend($n - 1);
        return;
    }
    say();
}

garbage(25000);
gc_collect_cycles();
garbage(100);
switch (getenv('PHPWHY_PHASE')) {
    case 'shutdown':
        register_shutdown_function('say');
        break;
    case 'exit':
        register_shutdown_function('say');
        exit;
    case 'destructor':
        $last = new Node;
        $last->last = true;
        break;
    case 'disabled':
        gc_disable();
        say();
        break;
    default:
        descend((int) getenv('PHPWHY_DEPTH'));
}
