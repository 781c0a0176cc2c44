package ptrace

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigqueue is sigqueue(3).
func sigqueue(pid int, sig unix.Signal, value int32) error {
	si := struct {
		signo, errno, code, _ int32
		pid, uid              int32
		value                 int64
		_                     [96]byte
	}{signo: int32(sig), code: -1, pid: int32(unix.Getpid()), value: int64(value)}
	if _, _, e := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(sig), uintptr(unsafe.Pointer(&si))); e != 0 {
		return e
	}
	return nil
}
