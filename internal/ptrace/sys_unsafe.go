package ptrace

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ptraceOptions are set when a thread is seized. PTRACE_O_EXITKILL is left out
// on purpose: the worker must outlive the tracer.
const ptraceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
	unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC

// request makes one ptrace call. The raw form keeps the Go scheduler out of
// the hot path; no request used here sleeps.
func request(req, tid int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func seize(tid int) error     { return request(unix.PTRACE_SEIZE, tid, 0, ptraceOptions) }
func interrupt(tid int) error { return request(unix.PTRACE_INTERRUPT, tid, 0, 0) }
func listen(tid int) error    { return request(unix.PTRACE_LISTEN, tid, 0, 0) }
func cont(tid, sig int) error { return request(unix.PTRACE_CONT, tid, 0, uintptr(sig)) }
func detach(tid int) error    { return request(unix.PTRACE_DETACH, tid, 0, 0) }

// toSyscall runs the thread up to the next entry to or exit from the kernel.
func toSyscall(tid, sig int) error { return request(unix.PTRACE_SYSCALL, tid, 0, uintptr(sig)) }

func step(tid, sig int) error { return request(unix.PTRACE_SINGLESTEP, tid, 0, uintptr(sig)) }

func getEventMsg(tid int) (int, error) {
	var msg uint64
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GETEVENTMSG, uintptr(tid), 0, uintptr(unsafe.Pointer(&msg)), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(msg), nil
}

// regSet is NT_PRSTATUS of elf.h: the general registers.
const ntPRSTATUS = 1

func getRegs(tid int, r *unix.PtraceRegs) error { return regSet(unix.PTRACE_GETREGSET, tid, r) }
func setRegs(tid int, r *unix.PtraceRegs) error { return regSet(unix.PTRACE_SETREGSET, tid, r) }

func regSet(req, tid int, r *unix.PtraceRegs) error {
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(r)), Len: uint64(unsafe.Sizeof(*r))}
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), ntPRSTATUS, uintptr(unsafe.Pointer(&iov)), 0, 0)
	runtime.KeepAlive(r)
	if e != 0 {
		return e
	}
	return nil
}

// syscallInfo is struct ptrace_syscall_info of uapi/linux/ptrace.h, Linux 5.3
// and later, as a stop at the entry fills it.
type syscallInfo struct {
	Op   uint8
	_    [3]uint8
	Arch uint32
	_    [2]uint64 // instruction and stack pointer
	Nr   uint64
	_    [7]uint64
}

const (
	ptraceGetSyscallInfo = 0x420e
	syscallInfoEntry     = 1
)

// enteredCall returns the number of the system call that a stopped thread is
// about to make; false when it stands elsewhere.
func enteredCall(tid int) (uint64, bool, error) {
	var in syscallInfo
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, ptraceGetSyscallInfo, uintptr(tid), unsafe.Sizeof(in), uintptr(unsafe.Pointer(&in)), 0, 0)
	if e != 0 {
		return 0, false, e
	}
	return in.Nr, in.Op == syscallInfoEntry && in.Arch == auditArch, nil
}

// ntX86XState is NT_X86_XSTATE of elf.h: the floating-point and vector registers.
const ntX86XState = 0x202

// getXState fills b with the XSAVE image and returns its size.
func getXState(tid int, b []byte) (int, error) {
	iov := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGSET, uintptr(tid), ntX86XState, uintptr(unsafe.Pointer(&iov)), 0, 0)
	runtime.KeepAlive(b)
	if e != 0 {
		return 0, e
	}
	return int(iov.Len), nil
}

func getSigMask(tid int) (uint64, error) {
	var m uint64
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GETSIGMASK, uintptr(tid), 8, uintptr(unsafe.Pointer(&m)), 0, 0)
	if e != 0 {
		return 0, e
	}
	return m, nil
}

func setSigMask(tid int, m uint64) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SETSIGMASK, uintptr(tid), 8, uintptr(unsafe.Pointer(&m)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// trapInfo is the part of siginfo_t that SIGTRAP uses, and room for the rest
// (uapi/asm-generic/siginfo.h; 64-bit).
type trapInfo struct {
	Signo, Errno, Code int32
	_                  int32
	Addr               uint64
	PerfData           uint64 // perf_event_attr.sig_data
	PerfType           uint32
	PerfFlags          uint32
	_                  [88]byte
}

func getSigInfo(tid int, si *trapInfo) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GETSIGINFO, uintptr(tid), 0, uintptr(unsafe.Pointer(si)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// maxPeek bounds how many queued signals of a thread are looked at.
const maxPeek = 32

// trapPending reports whether a SIGTRAP is queued for the thread and not blocked.
func trapPending(tid int) bool {
	if m, err := getSigMask(tid); err != nil || m&(1<<(uint(unix.SIGTRAP)-1)) != 0 {
		return false
	}
	arg := struct { // struct ptrace_peeksiginfo_args
		off   uint64
		flags uint32
		nr    int32
	}{nr: maxPeek}
	var si [maxPeek]trapInfo
	n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_PEEKSIGINFO, uintptr(tid), uintptr(unsafe.Pointer(&arg)), uintptr(unsafe.Pointer(&si)), 0, 0)
	if e != 0 {
		return false
	}
	for i := range si[:min(n, maxPeek)] {
		if si[i].Signo == int32(unix.SIGTRAP) {
			return true
		}
	}
	return false
}

// childInfo is the part of siginfo_t that waitid fills in.
type childInfo struct {
	Signo, Errno, Code int32
	_                  int32
	PID                int32
	UID                uint32
	Status             int32
	_                  [100]byte
}

// waitid with block set goes through the Go scheduler, so that a long wait
// keeps no processor from other goroutines.
func waitid(idtype, id int, ci *childInfo, options int, block bool) error {
	ci.PID = 0
	var e unix.Errno
	if block {
		_, _, e = unix.Syscall6(unix.SYS_WAITID, uintptr(idtype), uintptr(id), uintptr(unsafe.Pointer(ci)), uintptr(options), 0, 0)
	} else {
		_, _, e = unix.RawSyscall6(unix.SYS_WAITID, uintptr(idtype), uintptr(id), uintptr(unsafe.Pointer(ci)), uintptr(options|unix.WNOHANG), 0, 0)
	}
	if e != 0 {
		return e
	}
	return nil
}

// makeInterrupting takes SA_RESTART from this process's action for sig, and
// keeps the handler that the Go runtime installed: a system call in progress
// then returns EINTR.
func makeInterrupting(sig unix.Signal) error {
	return changeFlags(sig, func(flags uint64) uint64 { return flags &^ saRestart })
}

// endStopSignals keeps the kernel from sending this process a SIGCHLD for each
// stop of a tracee. wait is told anyway, and a signal would have to be handled
// each time, by whichever thread it finds. Children that end still send theirs.
func endStopSignals() error {
	return changeFlags(unix.SIGCHLD, func(flags uint64) uint64 { return flags | saNoCldStop })
}

func changeFlags(sig unix.Signal, to func(uint64) uint64) error {
	var sa sigaction
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&sa)), 8, 0, 0); e != 0 {
		return e
	}
	flags := to(sa.Flags)
	if flags == sa.Flags {
		return nil
	}
	sa.Flags = flags
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&sa)), 0, 8, 0, 0); e != 0 {
		return e
	}
	return nil
}

const perfAttrSize = uint32(unsafe.Sizeof(unix.PerfEventAttr{}))

func poke(tid int, at, v uint64) error {
	return request(unix.PTRACE_POKEDATA, tid, uintptr(at), uintptr(v))
}
