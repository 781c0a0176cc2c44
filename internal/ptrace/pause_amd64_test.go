package ptrace

import "golang.org/x/sys/unix"

// sysPause is the system call that libc's pause waits in.
const sysPause = unix.SYS_PAUSE
