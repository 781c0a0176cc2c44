package ptrace

import (
	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// userRegs are the general registers as NT_PRSTATUS holds them.
type userRegs = unix.PtraceRegs

func getRegs(tid int, r *userRegs) error { return regSet(unix.PTRACE_GETREGSET, tid, ntPRSTATUS, r) }
func setRegs(tid int, r *userRegs) error { return regSet(unix.PTRACE_SETREGSET, tid, ntPRSTATUS, r) }

func pcOf(r *userRegs) *uint64   { return &r.Rip }
func stackOf(r *userRegs) uint64 { return r.Rsp }

// convert copies the registers into DWARF order.
func convert(u *userRegs, r *remote.Regs) {
	r.Arch = remote.AMD64
	r.Set(remote.RAX, u.Rax)
	r.Set(remote.RDX, u.Rdx)
	r.Set(remote.RCX, u.Rcx)
	r.Set(remote.RBX, u.Rbx)
	r.Set(remote.RSI, u.Rsi)
	r.Set(remote.RDI, u.Rdi)
	r.Set(remote.RBP, u.Rbp)
	r.Set(remote.RSP, u.Rsp)
	r.Set(remote.R8, u.R8)
	r.Set(remote.R9, u.R9)
	r.Set(remote.R10, u.R10)
	r.Set(remote.R11, u.R11)
	r.Set(remote.R12, u.R12)
	r.Set(remote.R13, u.R13)
	r.Set(remote.R14, u.R14)
	r.Set(remote.R15, u.R15)
	r.Set(remote.RIP, u.Rip)
	r.TLS = remote.Addr(u.Fs_base)
	r.OrigSyscall = int64(u.Orig_rax)
}
