package ptrace

import (
	"encoding/binary"
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
	svc         = 0xd4000001 // svc #0
	redZone     = 128        // AAPCS64 has none, but somebody may
)

// syscallInsn finds an `svc #0` in the process. The vdso has one on every
// kernel: the way back from a signal handler.
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
		if err1 != nil || err2 != nil || end <= start {
			continue
		}
		code := make([]byte, min(end-start, maxCodeScan))
		n, _ := mem.ReadAt(code, int64(start))
		for off := 0; off+4 <= n; off += 4 {
			if binary.LittleEndian.Uint32(code[off:]) == svc {
				found = start + uint64(off)
				break
			}
		}
		if found != 0 && vdso {
			break
		}
	}
	if found == 0 {
		return 0, ErrNoSyscall
	}
	return found, nil
}

// injectAt makes the thread run one system call and puts its registers and
// signal mask back. The thread must stand in a stop; afterwards it stands in an
// event stop.
//
// A call of its own that the stop has interrupted is about to be made again:
// the kernel has already put the program counter back on its svc. Should it be
// one that goes on where it was (nanosleep, a futex with a timeout), the kernel
// changes its number to restart_syscall only when the thread leaves the stop
// with that program counter (arch/arm64/kernel/signal.c, do_signal). So such a
// thread is let in, and the call it makes is replaced at its entry.
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
	ret, err := s.runCall(t, &saved, pc, nr, args)
	if err != nil && gone(err) {
		return 0, err
	}
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

// runCall makes the call and runs until it returns. Where it replaces one, it
// notes in saved by which number that is to be made again.
func (s *session) runCall(t *tracee, saved *userRegs, pc, nr uint64, args []uint64) (uint64, error) {
	r := *saved
	replaces := s.onCall(saved.PC)
	if !replaces {
		r.PC = pc
	}
	r.X[8] = nr
	copy(r.X[:6], args)
	after := r.PC + 4
	if !replaces {
		if err := setRegs(t.tid, &r); err != nil {
			return 0, err
		}
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
		if now.PC != after {
			continue // the end of a system call of its own, as after exec
		}
		if entered {
			return now.X[0], nil
		}
		entered = true
		if !replaces {
			continue
		}
		saved.X[8] = now.X[8]
		r.PC = now.PC
		number := uint32(nr)
		if err := errors.Join(setRegs(t.tid, &r), regSet(unix.PTRACE_SETREGSET, t.tid, ntARMSystemCall, &number)); err != nil {
			return 0, err
		}
	}
	return 0, ErrNotStopping
}

// onCall reports whether a thread is about to make a system call.
func (s *session) onCall(pc uint64) bool {
	var b [4]byte
	_, err := s.mem.ReadAt(b[:], int64(pc))
	return err == nil && binary.LittleEndian.Uint32(b[:]) == svc
}

func (s *session) toEventStop(t *tracee) error {
	if err := interrupt(t.tid); err != nil {
		return err
	}
	sig := 0
	for range maxInjectStops {
		if err := cont(t.tid, sig); err != nil {
			return err
		}
		ev, err := s.nextOf(t)
		if err != nil {
			return err
		}
		sig = ev.unblockable()
		if ev.trace() == unix.PTRACE_EVENT_STOP {
			t.group = ev.sig() != int(unix.SIGTRAP)
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
