package proc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// ErrNotBlocked says that a thread is not blocked in a system call.
var ErrNotBlocked = errors.New("it is in no system call")

// Call is a system call that a thread is blocked in.
type Call struct {
	Number int
	Args   [6]uint64   // as in the registers: unused ones hold anything
	SP, PC remote.Addr // PC is behind the instruction that made the call
}

// The numbers of system calls on x86-64 that threads wait in
// (arch/x86/entry/syscalls/syscall_64.tbl).
const (
	SysRead           = 0
	SysWrite          = 1
	SysOpen           = 2
	SysPoll           = 7
	SysReadv          = 19
	SysWritev         = 20
	SysSelect         = 23
	SysNanosleep      = 35
	SysConnect        = 42
	SysAccept         = 43
	SysSendto         = 44
	SysRecvfrom       = 45
	SysSendmsg        = 46
	SysRecvmsg        = 47
	SysWait4          = 61
	SysSemop          = 65
	SysMsgrcv         = 70
	SysFcntl          = 72
	SysFlock          = 73
	SysFsync          = 74
	SysFutex          = 202
	SysRestart        = 219
	SysSemtimedop     = 220
	SysClockNanosleep = 230
	SysEpollWait      = 232
	SysWaitid         = 247
	SysOpenat         = 257
	SysPselect6       = 270
	SysPpoll          = 271
	SysEpollPwait     = 281
	SysAccept4        = 288
)

var callNames = map[int]string{
	SysRead: "read", SysWrite: "write", SysOpen: "open", SysPoll: "poll", SysReadv: "readv", SysWritev: "writev",
	SysSelect: "select", SysNanosleep: "nanosleep", SysConnect: "connect", SysAccept: "accept", SysSendto: "sendto",
	SysRecvfrom: "recvfrom", SysSendmsg: "sendmsg", SysRecvmsg: "recvmsg", SysWait4: "wait4", SysSemop: "semop",
	SysMsgrcv: "msgrcv", SysFcntl: "fcntl", SysFlock: "flock", SysFsync: "fsync", SysFutex: "futex",
	SysRestart: "restart_syscall", SysSemtimedop: "semtimedop", SysClockNanosleep: "clock_nanosleep",
	SysEpollWait: "epoll_wait", SysWaitid: "waitid", SysOpenat: "openat", SysPselect6: "pselect6", SysPpoll: "ppoll",
	SysEpollPwait: "epoll_pwait", SysAccept4: "accept4",
}

// Name is the call's name, "syscall 318" for one that nobody waits in.
func (c *Call) Name() string {
	if s := callNames[c.Number]; s != "" {
		return s
	}
	return fmt.Sprintf("syscall %d", c.Number)
}

// CallNamed is the number of a system call that threads wait in.
func CallNamed(name string) (number int, ok bool) {
	for n, s := range callNames {
		if s == name {
			return n, true
		}
	}
	return 0, false
}

// What the kernel has in a call's result while a tracer holds the thread: the
// call was broken off and goes on afterwards (include/linux/errno.h), or ends
// with EINTR, which epoll_wait and receiving with a time limit do.
const (
	eIntr           = 4
	eRestartFirst   = 512 // ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND
	eRestartLast    = 514
	eRestartByBlock = 516 // the next time its number is restart_syscall's
)

// CallAt is the call that a stopped thread was blocked in, from its registers;
// ErrNotBlocked when it was in none, or one that had ended by itself.
func CallAt(r *remote.Regs) (Call, error) {
	result, ok := r.Get(remote.RAX)
	if r.Arch != remote.AMD64 || !ok || r.OrigSyscall < 0 {
		return Call{}, ErrNotBlocked
	}
	switch e := -int64(result); {
	case e == eIntr, e >= eRestartFirst && e <= eRestartLast, e == eRestartByBlock:
	default:
		return Call{}, ErrNotBlocked
	}
	c := Call{Number: int(r.OrigSyscall), SP: r.SP(), PC: r.PC()}
	for i, n := range [...]int{remote.RDI, remote.RSI, remote.RDX, remote.R10, remote.R8, remote.R9} {
		if c.Args[i], ok = r.Get(n); !ok {
			return Call{}, ErrNotBlocked
		}
	}
	return c, nil
}

// Blocked is the call that a thread is blocked in, without stopping it. After a
// tracer's stop the number may be restart_syscall's: see Restarted.
func (p *Process) Blocked(tid int) (Call, error) {
	b, err := os.ReadFile(p.path(fmt.Sprintf("task/%d/syscall", tid)))
	if err != nil {
		return Call{}, p.fail("read the system call", err)
	}
	// "7 0x7ffe… 0x1 0xffffffff 0x0 0x0 0x0 SP PC"; "running"; "-1 SP PC".
	f := strings.Fields(string(b))
	if len(f) != 9 {
		return Call{}, p.fail("read the system call", ErrNotBlocked)
	}
	var c Call
	if c.Number, err = strconv.Atoi(f[0]); err != nil {
		return Call{}, p.fail("read the system call", err)
	}
	var v [8]uint64
	for i := range v {
		if v[i], err = strconv.ParseUint(f[1+i], 0, 64); err != nil {
			return Call{}, p.fail("read the system call", err)
		}
	}
	copy(c.Args[:], v[:6])
	c.SP, c.PC = remote.Addr(v[6]), remote.Addr(v[7])
	return c, nil
}

// moveAndCall is how far before PC the C library usually puts the number:
// mov $imm32, %eax; syscall.
const moveAndCall = 7

// Restarted gives a call that the kernel restarts (poll, nanosleep, futex) its
// own number back, which is only left in the code that made it. It reports
// whether the number is known.
func (c *Call) Restarted(r remote.Reader) bool {
	if c.Number != SysRestart {
		return true
	}
	var code [moveAndCall]byte
	if c.PC < moveAndCall || remote.ReadFull(r, code[:], c.PC-moveAndCall) != nil {
		return false
	}
	if code[0] != 0xb8 || code[5] != 0x0f || code[6] != 0x05 {
		return false
	}
	n := binary.LittleEndian.Uint32(code[1:])
	if _, known := callNames[int(n)]; !known {
		return false
	}
	c.Number = int(n)
	return true
}

// Switches counts how often a thread has given up its processor to wait. Each
// stop by a tracer adds one, and one more when the thread goes on waiting: a wait
// that lasts from one stop to the next adds two, and more than that is another.
// That only holds for what is read while the thread stands still, so Read is
// quick and asks for no memory.
type Switches struct {
	f   *os.File
	buf [4096]byte
}

// Switches opens the count of a thread. The caller closes it.
func (p *Process) Switches(tid int) (*Switches, error) {
	f, err := os.Open(p.path(fmt.Sprintf("task/%d/status", tid)))
	if err != nil {
		return nil, p.fail("count the waits", err)
	}
	return &Switches{f: f}, nil
}

// switchesLine is how the line begins that has the count.
var switchesLine = []byte("\nvoluntary_ctxt_switches:\t")

// Read is the count now; false when the thread has ended.
func (s *Switches) Read() (n uint64, ok bool) {
	got, _ := s.f.ReadAt(s.buf[:], 0) // at its end there is an error, too
	_, rest, ok := bytes.Cut(s.buf[:got], switchesLine)
	if !ok {
		return 0, false
	}
	for i, c := range rest {
		if c < '0' || c > '9' {
			return n, i > 0
		}
		n = n*10 + uint64(c-'0')
	}
	return 0, false
}

// Close ends the counting.
func (s *Switches) Close() error { return s.f.Close() }
