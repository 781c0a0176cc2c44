package ptrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A worker is made to run a system call by pointing a thread at an `svc`
// instruction of its own libc. The tracer may be killed at any instant of that,
// and the thread then runs on alone from wherever it was put. So its way home
// is laid out before the first register changes: below its stack stands the
// frame of a signal that never was, with all its registers in it. The system
// call instruction is followed by ret, and the link register leads to the vdso's
// way back from a handler. A living tracer does not let it come to that: it
// puts the registers back itself.

const (
	// maxInjectStops bounds the stops seen before an injected call is done.
	maxInjectStops = 1000
	// maxCodeScan bounds how much of one mapping is searched for the two
	// pieces of code, and maxCodeMappings how many mappings, in bytes.
	maxCodeScan     = 32 << 20
	maxCodeMappings = 64
	codeChunk       = 256 << 10
	redZone         = 128 // AAPCS64 has none, but somebody may
	maxCallArgs     = 6
	svcLen          = 4
)

// borrowed are the pieces of the target's own code that an injected call uses.
type borrowed struct {
	call   uint64 // svc #0; ret
	goBack uint64 // mov x8, #SYS_rt_sigreturn; svc #0
}

func (b borrowed) ok() bool { return b.call != 0 && b.goBack != 0 }

const (
	insnSVC    = 0xd4000001
	insnRET    = 0xd65f03c0
	insnMovNr  = 0xd2801168 // mov x8, #139
	insnMovNrW = 0x52801168 // mov w8, #139
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
		if name == "[vdso]" || strings.Contains(name, "/libc") || strings.Contains(name, "/ld-musl") {
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
		if err1 != nil || err2 != nil || end <= start {
			continue
		}
		if s.code.search(s.mem, start, min(end, start+maxCodeScan)); s.code.ok() {
			return nil
		}
	}
	return ErrNoSyscall
}

// search looks for what is still missing in [start, end).
func (b *borrowed) search(mem *os.File, start, end uint64) {
	buf := make([]byte, codeChunk+svcLen)
	for at := start; at < end && !b.ok(); at += codeChunk {
		n, _ := mem.ReadAt(buf[:min(uint64(len(buf)), end-at)], int64(at))
		for i := 0; i+8 <= n; i += 4 {
			w, next := binary.LittleEndian.Uint32(buf[i:]), binary.LittleEndian.Uint32(buf[i+4:])
			switch {
			case w == insnSVC && next == insnRET && b.call == 0:
				b.call = at + uint64(i)
			case (w == insnMovNr || w == insnMovNrW) && next == insnSVC && b.goBack == 0:
				b.goBack = at + uint64(i)
			}
		}
	}
}

// inject makes the thread run one system call and puts its registers and signal
// mask back. The thread must stand in a stop; afterwards it stands in an event
// stop.
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
	var mask, ret uint64
	var data []uint64
	for try, made := 0, false; !made; try++ {
		if try == maxInjectStops {
			return fail(ErrNotStopping)
		}
		if err := getRegs(t.tid, &saved); err != nil {
			return fail(err)
		}
		if mask, err = getSigMask(t.tid); err != nil {
			return fail(err)
		}
		var r userRegs
		if r, data, err = s.lay(t, mem, &saved, []call{*c}); err != nil {
			return fail(err)
		}
		if made = true; resumes(mem, &saved) {
			ret, made, err = s.replaceCall(t, &saved, &r)
		} else {
			ret, err = s.runCall(t, &r)
		}
		if err != nil && (!made || gone(err)) {
			return fail(err)
		}
	}
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
	if t.group || resumes(s.mem, &r) {
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

// resuming are the system calls that go on where they were when they are made
// again after an interruption, by the number of restart_syscall.
var resuming = []uint64{unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_RESTART_SYSCALL}

// resumes reports whether a thread is about to make such a call again. The
// kernel has already put the program counter back on its svc, and changes its
// number only when the thread leaves the stop with that program counter
// (arch/arm64/kernel/signal.c, do_signal): pointed elsewhere meanwhile, it would
// begin anew each time, and a sleep might never end.
func resumes(mem *os.File, r *userRegs) bool {
	var b [svcLen]byte
	_, err := mem.ReadAt(b[:], int64(r.PC))
	return err == nil && binary.LittleEndian.Uint32(b[:]) == insnSVC && slices.Contains(resuming, r.X[8])
}

// runCall sets the registers r and runs until the call they describe returns.
// System call stops are used, not single steps: a step's SIGTRAP is forced and
// would reset the action that is being set.
func (s *session) runCall(t *tracee, r *userRegs) (uint64, error) {
	if err := setRegs(t.tid, r); err != nil {
		return 0, err
	}
	// No signal may come between; those that arrive stay pending. Only now: a
	// tracer killed before would have left the thread deaf.
	if err := setSigMask(t.tid, ^uint64(0)); err != nil {
		return 0, err
	}
	if _, err := s.callStop(t, r.PC+svcLen); err != nil { // the entry
		return 0, err
	}
	now, err := s.callStop(t, r.PC+svcLen)
	return now.X[0], err
}

// replaceCall lets the thread make its own call, and at the entry makes another
// of it, that ends where r's would. It notes in saved by which number its own is
// to be made again. When a signal comes first it is not made: the thread has
// got the signal and stands in an event stop.
func (s *session) replaceCall(t *tracee, saved, r *userRegs) (ret uint64, made bool, err error) {
	now, in, err := s.enterCall(t, saved.PC+svcLen)
	if err != nil || !in {
		return 0, false, err
	}
	// Whoever dies between two of these has led the thread home, with its own
	// call made, or none, or ours: never one with the other's arguments.
	home := now
	home.PC, home.SP, home.X[30] = r.PC+svcLen, r.SP, r.X[30]
	ours := *r
	ours.PC = home.PC
	for _, step := range []func() error{
		func() error { return setRegs(t.tid, &home) },
		func() error { return setSigMask(t.tid, ^uint64(0)) },
		func() error { return setCall(t.tid, noCall) },
		func() error { return setRegs(t.tid, &ours) },
		func() error { return setCall(t.tid, r.X[8]) },
	} {
		if err := step(); err != nil {
			return 0, true, err
		}
	}
	end, err := s.callStop(t, home.PC)
	saved.X[8] = now.X[8]
	return end.X[0], true, err
}

// enterCall runs up to the entry to the system call that the thread is about to
// make, whose instruction ends at pc. Nothing is blocked meanwhile: a tracer
// that is killed leaves the thread as it was.
func (s *session) enterCall(t *tracee, pc uint64) (now userRegs, in bool, err error) {
	if err := toSyscall(t.tid, 0); err != nil {
		return now, false, err
	}
	ev, err := s.nextOf(t)
	switch {
	case err != nil:
		return now, false, err
	case ev.trace() == unix.PTRACE_EVENT_STOP:
		t.group = ev.sig() != int(unix.SIGTRAP)
		return now, false, nil
	case !ev.syscallStop():
		return now, false, s.eventStop(t, ev.sig())
	}
	if err := getRegs(t.tid, &now); err != nil {
		return now, false, err
	}
	if now.PC != pc {
		return now, false, s.eventStop(t, 0)
	}
	return now, true, nil
}

// noCall is the number that makes a call none.
const noCall = ^uint64(0)

// callStop runs up to the next entry to or return from the system call whose
// instruction ends at pc.
func (s *session) callStop(t *tracee, pc uint64) (userRegs, error) {
	var now userRegs
	sig := 0
	for range maxInjectStops {
		if err := toSyscall(t.tid, sig); err != nil {
			return now, err
		}
		ev, err := s.nextOf(t)
		if err != nil {
			return now, err
		}
		if sig = ev.unblockable(); !ev.syscallStop() {
			continue
		}
		if err := getRegs(t.tid, &now); err != nil {
			return now, err
		}
		if now.PC == pc {
			return now, nil
		} // else the end of a system call of its own, as after exec
	}
	return now, ErrNotStopping
}
