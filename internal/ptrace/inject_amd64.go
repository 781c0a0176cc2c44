package ptrace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A worker is made to run a system call by pointing a thread at a `syscall`
// instruction of its own libc. The tracer may be killed at any instant of that,
// and the thread then runs on alone from wherever it was put. So its way home
// is laid out before the first register changes: below its stack stands the
// frame of a signal that never was, with all its registers in it. The system
// call instruction is followed by ret, that leads to the libc's own restorer,
// and rt_sigreturn(2) takes everything from the frame.
//
// Where nobody needs the call's result, that is also the quick way: send lays
// out several calls and lets the thread go, which stands still only once. inject
// follows one call and puts the registers back itself.

const (
	// maxInjectStops bounds the stops seen before an injected call is done.
	maxInjectStops = 1000
	// maxCodeScan bounds how much of one mapping is searched for the two
	// pieces of code, and maxCodeMappings how many mappings, in bytes.
	maxCodeScan     = 32 << 20
	maxCodeMappings = 64
	codeChunk       = 256 << 10
	redZone         = 128
)

// borrowed are the pieces of the target's own code that an injected call uses.
type borrowed struct {
	call   uint64 // syscall; ret
	goBack uint64 // mov $SYS_rt_sigreturn,%eax; syscall
}

func (b borrowed) ok() bool { return b.call != 0 && b.goBack != 0 }

var (
	callCode = []byte{0x0f, 0x05, 0xc3}
	// The restorer of glibc and musl has the first form, that of others the second.
	goBackCodes = [][]byte{
		{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05},
		{0xb8, 15, 0, 0, 0, 0x0f, 0x05},
	}
)

// borrow finds the code to inject with. It reads a running target: nothing has
// to stand still for it.
func (s *session) borrow() error {
	if s.code.ok() {
		return nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", s.pid))
	if err != nil {
		return err
	}
	var likely, other []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 || len(f[1]) < 4 || f[1][2] != 'x' {
			continue
		}
		name := f[len(f)-1]
		if strings.Contains(name, "/libc") || strings.Contains(name, "/ld-musl") {
			likely = append(likely, f[0])
		} else {
			other = append(other, f[0])
		}
	}
	for i, r := range append(likely, other...) {
		if i == maxCodeMappings {
			break
		}
		lo, hi, _ := strings.Cut(r, "-")
		start, err1 := strconv.ParseUint(lo, 16, 64)
		end, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 != nil || err2 != nil || end <= start || int64(start) < 0 {
			continue // [vsyscall] has a negative file offset
		}
		if s.code.search(s.mem, start, min(end, start+maxCodeScan)); s.code.ok() {
			return nil
		}
	}
	return ErrNoSyscall
}

// search looks for what is still missing in [start, end).
func (b *borrowed) search(mem *os.File, start, end uint64) {
	buf := make([]byte, codeChunk+16)
	for at := start; at < end && !b.ok(); at += codeChunk {
		n, _ := mem.ReadAt(buf[:min(uint64(len(buf)), end-at)], int64(at))
		if i := bytes.Index(buf[:n], callCode); i >= 0 && b.call == 0 {
			b.call = at + uint64(i)
		}
		for _, code := range goBackCodes {
			if i := bytes.Index(buf[:n], code); i >= 0 && b.goBack == 0 {
				b.goBack = at + uint64(i)
			}
		}
	}
}

// inject makes the thread run one system call and puts its registers and signal
// mask back. The thread must stand in a stop; afterwards it stands in an event
// stop, from which an interrupted system call of its own restarts as the
// kernel intended.
func (s *session) inject(t *tracee, c *call) (uint64, error) {
	fail := func(err error) (uint64, error) {
		return 0, fmt.Errorf("injected system call %d: %w", c.nr, err)
	}
	if err := s.borrow(); err != nil {
		return fail(err)
	}
	mem, done, err := s.memoryOf(t)
	if err != nil {
		return fail(err)
	}
	defer done()
	var saved userRegs
	if err := getRegs(t.tid, &saved); err != nil {
		return fail(err)
	}
	mask, err := getSigMask(t.tid)
	if err != nil {
		return fail(err)
	}
	r, data, err := s.lay(t, mem, &saved, []call{*c})
	if err != nil {
		return fail(err)
	}
	ret, err := s.runCall(t, &r)
	if err != nil && gone(err) {
		return fail(err)
	}
	// Out of the system call stop and into an event stop, without a single
	// instruction in between: only there does the kernel look at orig_rax.
	err = errors.Join(err, s.toEventStop(t))
	// The mask first: until the registers are back the frame would restore it.
	err = errors.Join(err, setSigMask(t.tid, mask), setRegs(t.tid, &saved))
	if err != nil {
		return fail(err)
	}
	if e := int64(ret); e < 0 && e > -4096 {
		return fail(unix.Errno(-e))
	}
	if len(c.data) > 0 {
		if _, err := mem.ReadAt(c.data, int64(data[0])); err != nil {
			return fail(err)
		}
	}
	return ret, nil
}

// send has a thread that stands in a stop make the calls and go home, once it
// is resumed or detached; it reports whether that can be done. A thread in a
// group stop would not run, and one whose system call goes on with the rest of
// its time would begin it anew.
func (s *session) send(t *tracee, calls ...call) (bool, error) {
	var r userRegs
	if err := getRegs(t.tid, &r); err != nil {
		return false, err
	}
	if t.group || s.resuming(&r) {
		return false, nil
	}
	if err := s.borrow(); err != nil {
		return false, err
	}
	r, _, err := s.lay(t, s.mem, &r, calls)
	if err == nil {
		err = setRegs(t.tid, &r)
	}
	if err != nil {
		return false, err
	}
	// No signal may come first: there may be thousands. The last frame has the
	// mask as it was; a tracer killed before this leaves nothing undone.
	return true, setSigMask(t.tid, ^uint64(0))
}

// resuming reports whether a system call of the thread's own is to go on with the rest
// of its time, which rt_sigreturn forgets: restart_syscall(2) then fails with EINTR, and
// a sleep is over. The kernel may have seen to the restart already, when a second
// interrupt came on its way back to the program (arch_do_signal_or_restart in
// arch/x86/kernel/signal.c): then the number of that call is all there is to see.
func (s *session) resuming(r *userRegs) bool {
	if int64(r.Orig_rax) >= 0 && -int64(r.Rax) == eRestartRestart {
		return true
	}
	if r.Rax != unix.SYS_RESTART_SYSCALL {
		return false
	}
	var code [2]byte
	_, err := s.mem.ReadAt(code[:], int64(r.Rip))
	return err != nil || bytes.Equal(code[:], callCode[:2])
}

// runCall sets the registers r and runs until the call they describe returns.
// System call stops are used, not single steps: a step's SIGTRAP is forced and
// would reset the action that is being set.
func (s *session) runCall(t *tracee, r *userRegs) (uint64, error) {
	nr, after := r.Rax, r.Rip+2
	if err := setRegs(t.tid, r); err != nil {
		return 0, err
	}
	// No signal may come between; those that arrive stay pending. Only now: a
	// tracer killed before would have left the thread deaf.
	if err := setSigMask(t.tid, ^uint64(0)); err != nil {
		return 0, err
	}
	entered, sig := false, 0
	for range maxInjectStops {
		if err := toSyscall(t.tid, sig); err != nil {
			return 0, err
		}
		ev, err := s.nextOf(t)
		if err != nil {
			return 0, err
		}
		if sig = ev.unblockable(); !ev.syscallStop() {
			continue
		}
		var now userRegs
		if err := getRegs(t.tid, &now); err != nil {
			return 0, err
		}
		if now.Orig_rax != nr || now.Rip != after {
			continue // the end of a system call of its own, as after exec
		}
		if entered {
			return now.Rax, nil
		}
		entered = true
	}
	return 0, ErrNotStopping
}
