package ptrace

import (
	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/ptrace/arm64"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Register sets of elf.h.
const (
	ntARMTLS        = 0x401 // tpidr_el0
	ntARMSystemCall = 0x404 // the number of the call at whose entry a thread stands
)

// userRegs are the general registers as NT_PRSTATUS holds them, and the thread
// pointer, which is a set of its own.
type userRegs struct {
	arm64.Regs
	TLS uint64
}

func getRegs(tid int, r *userRegs) error {
	if err := regSet(unix.PTRACE_GETREGSET, tid, ntPRSTATUS, &r.Regs); err != nil {
		return err
	}
	return regSet(unix.PTRACE_GETREGSET, tid, ntARMTLS, &r.TLS)
}

// setRegs leaves the thread pointer alone: nothing here changes it.
func setRegs(tid int, r *userRegs) error {
	return regSet(unix.PTRACE_SETREGSET, tid, ntPRSTATUS, &r.Regs)
}

func pcOf(r *userRegs) *uint64   { return &r.PC }
func stackOf(r *userRegs) uint64 { return r.SP }

// convert copies the registers, whose DWARF order is the kernel's.
func convert(u *userRegs, r *remote.Regs) {
	r.Arch = remote.ARM64
	for i, v := range u.X {
		r.Set(i, v)
	}
	r.SetSP(remote.Addr(u.SP))
	r.SetPC(remote.Addr(u.PC))
	r.TLS = remote.Addr(u.TLS)
	// The kernel forgets the number of an interrupted call.
	r.OrigSyscall = -1
}
