package ptrace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// defaultAction gives this process's action for a signal back to the kernel.
func defaultAction(sig unix.Signal) error {
	var sa sigaction
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&sa)), 0, sigsetSize, 0, 0); e != 0 {
		return e
	}
	return nil
}
