package ptrace

import "golang.org/x/sys/unix"

// auditArch is AUDIT_ARCH_AARCH64 (uapi/linux/audit.h): a 32-bit program makes
// system calls whose numbers mean something else.
const auditArch = 0xc00000b7

// asFunction has nothing to do: a system call's arguments are in the registers
// of the function's.
func asFunction(*userRegs) {}

// syscallNumbers are the functions of the C library that one can stop at by
// their system call. Where arm64 has no call of the name, it is the one that the
// C library makes instead.
var syscallNumbers = map[string]int{
	"mmap": unix.SYS_MMAP, "mremap": unix.SYS_MREMAP, "munmap": unix.SYS_MUNMAP, "brk": unix.SYS_BRK, "madvise": unix.SYS_MADVISE,
	"mprotect": unix.SYS_MPROTECT, "read": unix.SYS_READ, "write": unix.SYS_WRITE, "open": unix.SYS_OPENAT, "openat": unix.SYS_OPENAT,
	"close": unix.SYS_CLOSE, "poll": unix.SYS_PPOLL, "ppoll": unix.SYS_PPOLL, "select": unix.SYS_PSELECT6, "epoll_wait": unix.SYS_EPOLL_PWAIT,
	"connect": unix.SYS_CONNECT, "accept": unix.SYS_ACCEPT, "recvfrom": unix.SYS_RECVFROM, "sendto": unix.SYS_SENDTO,
	"recvmsg": unix.SYS_RECVMSG, "sendmsg": unix.SYS_SENDMSG, "flock": unix.SYS_FLOCK, "fcntl": unix.SYS_FCNTL, "futex": unix.SYS_FUTEX,
	"nanosleep": unix.SYS_NANOSLEEP, "clock_nanosleep": unix.SYS_CLOCK_NANOSLEEP, "wait4": unix.SYS_WAIT4, "fork": unix.SYS_CLONE,
	"execve": unix.SYS_EXECVE, "kill": unix.SYS_KILL, "stat": unix.SYS_NEWFSTATAT, "fstat": unix.SYS_FSTAT, "lseek": unix.SYS_LSEEK,
}

// Syscall returns the number of the system call that a function of the C
// library makes, -1 when none is known.
func Syscall(function string) int {
	if nr, ok := syscallNumbers[function]; ok {
		return nr
	}
	return -1
}
