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

const (
	// maxInjectStops bounds the stops seen before an injected call is done.
	maxInjectStops = 1000
	// maxCodeScan bounds how much of one mapping is searched for a system
	// call instruction, in bytes.
	maxCodeScan = 4 << 20
	redZone     = 128
)

// syscallInsn finds a `syscall` instruction (0f 05) in the process. The vdso
// has one on every kernel: the way out of clock_gettime.
func syscallInsn(pid int, mem *os.File) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	var found uint64
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 5 || len(f[1]) < 4 || f[1][2] != 'x' {
			continue
		}
		vdso := f[len(f)-1] == "[vdso]"
		if found != 0 && !vdso {
			continue
		}
		lo, hi, _ := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(lo, 16, 64)
		end, err2 := strconv.ParseUint(hi, 16, 64)
		if err1 != nil || err2 != nil || end <= start || int64(start) < 0 {
			continue // [vsyscall] has a negative file offset
		}
		code := make([]byte, min(end-start, maxCodeScan))
		n, _ := mem.ReadAt(code, int64(start))
		if i := bytes.Index(code[:n], []byte{0x0f, 0x05}); i >= 0 {
			found = start + uint64(i)
			if vdso {
				break
			}
		}
	}
	if found == 0 {
		return 0, ErrNoSyscall
	}
	return found, nil
}

// injectAt makes the thread run one system call, through the instruction at pc,
// and puts its registers and signal mask back. The thread must stand in a stop;
// afterwards it stands in an event stop, from which an interrupted system call
// of its own restarts as the kernel intended.
func (s *session) injectAt(t *tracee, pc, nr uint64, args ...uint64) (uint64, error) {
	var saved userRegs
	if err := getRegs(t.tid, &saved); err != nil {
		return 0, err
	}
	mask, err := getSigMask(t.tid)
	if err != nil {
		return 0, err
	}
	// No signal may come between; those that arrive stay pending.
	if err := setSigMask(t.tid, ^uint64(0)); err != nil {
		return 0, err
	}
	r := saved
	r.Rip, r.Rax, r.Orig_rax = pc, nr, ^uint64(0) // -1: nothing to restart
	for i, p := range []*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9} {
		if i < len(args) {
			*p = args[i]
		}
	}
	ret, err := s.runCall(t, &r)
	if err != nil && gone(err) {
		return 0, err
	}
	// Out of the system call stop and into an event stop, without a single
	// instruction in between: only there does the kernel look at orig_rax.
	err = errors.Join(err, s.toEventStop(t))
	err = errors.Join(err, setRegs(t.tid, &saved), setSigMask(t.tid, mask))
	if err != nil {
		return 0, fmt.Errorf("injected system call %d: %w", nr, err)
	}
	if e := int64(ret); e < 0 && e > -4096 {
		return 0, fmt.Errorf("injected system call %d: %w", nr, unix.Errno(-e))
	}
	return ret, nil
}

// runCall sets the registers r and runs until the call they describe returns.
// System call stops are used, not single steps: a step's SIGTRAP is forced and
// would reset the action that is being set.
func (s *session) runCall(t *tracee, r *userRegs) (uint64, error) {
	nr, after := r.Rax, r.Rip+2
	if err := setRegs(t.tid, r); err != nil {
		return 0, err
	}
	entered := false
	for range maxInjectStops {
		if err := toSyscall(t.tid); err != nil {
			return 0, err
		}
		ev, err := s.nextOf(t)
		if err != nil {
			return 0, err
		}
		if !ev.syscallStop() {
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

func (s *session) toEventStop(t *tracee) error {
	if err := interrupt(t.tid); err != nil {
		return err
	}
	for range maxInjectStops {
		if err := cont(t.tid, 0); err != nil {
			return err
		}
		ev, err := s.nextOf(t)
		if err != nil {
			return err
		}
		if ev.trace() == unix.PTRACE_EVENT_STOP {
			return nil
		}
	}
	return ErrNotStopping
}

// nextOf waits for one thread and takes the event. The end of the thread is ESRCH.
func (s *session) nextOf(t *tracee) (event, error) {
	var ev event
	if err := one(t.tid, &ev, stopTimeout); err != nil {
		if errors.Is(err, unix.ECHILD) {
			err = unix.ESRCH
		}
		return ev, err
	}
	if ev.ended() {
		s.reap(&ev)
		return ev, unix.ESRCH
	}
	consume(t.tid)
	return ev, nil
}

// scratch runs f with the address of n bytes the thread's kernel calls may
// write to, and puts the old contents back. They lie below the red zone of its
// stack, or where that is not mapped yet, in other writable memory.
func scratch(pid int, mem *os.File, sp uint64, n int, f func(at uint64) error) error {
	at := (sp - redZone - uint64(n)) &^ 15
	old := make([]byte, n)
	if _, err := mem.ReadAt(old, int64(at)); err != nil {
		if at, err = writable(pid); err != nil {
			return err
		}
		if _, err := mem.ReadAt(old, int64(at)); err != nil {
			return err
		}
	}
	err := f(at)
	if _, werr := mem.WriteAt(old, int64(at)); werr != nil {
		err = errors.Join(err, werr)
	}
	return err
}

// writable returns the start of the first private writable mapping.
func writable(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		lo, rest, _ := strings.Cut(line, "-")
		if _, perm, ok := strings.Cut(rest, " "); ok && strings.HasPrefix(perm, "rw-p") {
			return strconv.ParseUint(lo, 16, 64)
		}
	}
	return 0, errors.New("no writable memory")
}
