<?php
// Rule deadlock.signal-malloc: a signal handler calls malloc. Extensions and
// preloaded libraries do that; here FFI makes malloc itself the handler of
// SIGALRM, a second thread makes malloc take its lock, and a timer fires until
// a signal comes while the lock is held, which takes milliseconds. Needs
// -d extension=ffi -d ffi.enable=1.

$libc = FFI::cdef('
    typedef void *(*start)(void *);
    int pthread_create(unsigned long *thread, void *attr, start f, void *arg);
    void *signal(int signum, void *handler);
    void *dlsym(void *handle, const char *name);
    struct interval { long every_s, every_us, first_s, first_us; };
    int setitimer(int which, struct interval *new, void *old);
    void *malloc(size_t n);
    void free(void *p);
', 'libc.so.6');

function importRows($libc): void
{
    for (;;) {
        $row = $libc->malloc(3000);
        $libc->free($row);
    }
}

// A thread that only sleeps: with it, malloc locks.
$thread = $libc->new('unsigned long');
$sleep = FFI::cdef('', 'libc.so.6');
$libc->pthread_create(FFI::addr($thread), null, $libc->cast('start', $libc->dlsym(null, 'sleep')), $libc->cast('void *', 600));
$libc->signal(14, $libc->dlsym(null, 'malloc'));
$timer = $libc->new('struct interval');
$timer->every_us = $timer->first_us = 50;
echo "ready\n";
flush();
$libc->setitimer(0, FFI::addr($timer), null);
importRows($libc);
