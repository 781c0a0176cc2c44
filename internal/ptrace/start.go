package ptrace

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/proc"
)

// StartArg is the hidden first argument with which this program runs itself to
// become the command that is to be observed.
const StartArg = "__ptrace-start"

// HelperMain runs what GuardArg, StartArg or ProbeArg ask for; main calls it with the
// arguments from that one on, and exits with the status it returns. It
// doesn't return when the command could be started.
func HelperMain(args []string) int {
	switch {
	case len(args) > 0 && args[0] == GuardArg:
		return guardMain(args[1:], os.Stdin, os.Stdout)
	case len(args) > 0 && args[0] == ProbeArg:
		return subjectMain(os.Stdin, os.Stdout)
	case len(args) > 2 && args[0] == StartArg:
		return startMain(args[1], args[2:])
	}
	return 2
}

// IsHelper reports whether the arguments are for HelperMain.
func IsHelper(args []string) bool {
	return len(args) > 0 && (args[0] == GuardArg || args[0] == StartArg || args[0] == ProbeArg)
}

// gateFD is where the start helper waits until it is traced.
const gateFD = 3

// startMain waits for the gate and becomes the command.
func startMain(path string, argv []string) int {
	gate := os.NewFile(gateFD, "gate")
	if _, err := io.ReadFull(gate, make([]byte, 1)); err != nil {
		return 127 // the tracer is gone
	}
	_ = gate.Close()
	err := syscall.Exec(path, argv, os.Environ())
	fmt.Fprintf(os.Stderr, "phpwhy: cannot run %s: %v\n", path, err)
	return 127
}

// Command is a program to start under observation.
type Command struct {
	Args                  []string // Args[0] is looked up in PATH
	Dir                   string   // empty: the current one
	Env                   []string // nil: this process's
	Stdin, Stdout, Stderr *os.File // nil: /dev/null
	// Started, when not nil, is called once the process that becomes the
	// command exists: what this process gives up from then on the command keeps.
	Started func()
	// Follow, when not nil, reports whether an error of ready is of a program that may
	// replace itself with the one to observe, as env and a shell's exec do. It runs on
	// then, and ready is called again for its successor.
	Follow func(error) bool
}

// followTimeout is how long a program may take to replace itself. What is to be
// observed begins with it, so that it is short.
const followTimeout = 3 * time.Second

// startTimeout is how long a started program may take to reach its entry point.
const startTimeout = 30 * time.Second

// ObserveCommand starts a program and observes it from its entry point: the
// dynamic linker has by then mapped the libraries it names, and none of the
// program's own code has run. ready is called there, with the program stopped,
// and says what to observe. When the program outlives the observation, it
// runs on and the returned process is to be waited for; else it is nil.
func ObserveCommand(ctx context.Context, c Command, ready func(pid int) (Options, error), h Handler) (Result, *os.Process, error) {
	var res Result
	var child *os.Process
	err := onThread(func() error {
		p, gate, err := c.start()
		if err != nil {
			return err
		}
		child, res.PID = p, p.Pid
		if c.Started != nil {
			c.Started()
		}
		s := newSession(p.Pid)
		if err := s.toEntry(gate); err != nil {
			err = errors.Join(err, s.release(), ignoreDone(p.Kill()))
			_, _ = p.Wait()
			child = nil
			return err
		}
		if s.ended != nil {
			res.Ended, res.Exit = *s.ended, s.exit
			return s.close()
		}
		o, err := ready(p.Pid)
		for err != nil && c.Follow != nil && c.Follow(err) {
			next, ferr := s.toNext(ctx)
			if s.ended != nil {
				res.Ended, res.Exit = *s.ended, s.exit
				return errors.Join(err, ferr, s.close())
			}
			if !next {
				return errors.Join(err, ferr, s.release())
			}
			o, err = ready(p.Pid)
		}
		if err != nil {
			return errors.Join(err, s.release())
		}
		return newObserver(s, o, h, &res).run(ctx)
	})
	if child != nil && res.Exit.Known {
		_ = child.Release()
		child = nil
	}
	return res, child, err
}

func ignoreDone(err error) error {
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// start runs this program as the start helper, which waits at the gate.
func (c *Command) start() (*os.Process, *os.File, error) {
	if len(c.Args) == 0 {
		return nil, nil, errors.New("no command to start")
	}
	path, err := exec.LookPath(c.Args[0])
	if err != nil {
		return nil, nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	files := []*os.File{c.Stdin, c.Stdout, c.Stderr, r}
	for i := range gateFD {
		if files[i] == nil {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				return nil, nil, errors.Join(err, w.Close())
			}
			defer null.Close()
			files[i] = null
		}
	}
	p, err := os.StartProcess("/proc/self/exe", append([]string{"phpwhy", StartArg, path}, c.Args...),
		&os.ProcAttr{Dir: c.Dir, Env: c.Env, Files: files})
	if err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	return p, w, nil
}

// toEntry seizes the helper, opens the gate, and runs the program it becomes up
// to its entry point.
func (s *session) toEntry(gate *os.File) error {
	err := s.attach()
	if err == nil {
		_, err = gate.Write([]byte{1})
	}
	if err = errors.Join(err, gate.Close()); err != nil {
		return err
	}
	for {
		ok, err := s.untilExec(context.Background(), startTimeout)
		if err == nil && !ok {
			err = &proc.Error{PID: s.pid, What: "start the program", Err: ErrNotStopping}
		}
		if err != nil || s.ended == nil || *s.ended != EndExec {
			return err
		}
		s.ended = nil
		if !becoming(s.pid) {
			break
		}
		// Seized so early that the helper's own exec was still to be reported.
		if err := s.resumeAll(); err != nil {
			return err
		}
	}
	return s.enter()
}

// toNext runs a program on to the entry point of the one that it replaces itself with.
// It is false where that does not come.
func (s *session) toNext(ctx context.Context) (bool, error) {
	s.held = false
	if err := s.resumeAll(); err != nil {
		return false, err
	}
	ok, err := s.untilExec(ctx, followTimeout)
	if err != nil || !ok || s.ended == nil || *s.ended != EndExec {
		return false, err
	}
	s.ended = nil
	err = s.enter()
	return err == nil && s.ended == nil, err
}

// enter runs a program that has just replaced another up to its entry point.
func (s *session) enter() error {
	if err := s.reopen(); err != nil {
		return err
	}
	entry, err := entryPoint(s.pid)
	if err != nil {
		return err
	}
	s.held = true
	return s.runTo(s.threads[s.pid], entry)
}

// becoming reports whether a process is still the helper that waits at the gate.
func becoming(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.HasPrefix(b, []byte("phpwhy\x00"+StartArg+"\x00"))
}

// untilExec runs the threads until one has called exec or the program has ended; it is
// false when that takes longer than limit, or ctx is over.
func (s *session) untilExec(ctx context.Context, limit time.Duration) (bool, error) {
	w, err := newWaiter()
	if err != nil {
		return false, err
	}
	w.start(ctx, limit, 0)
	defer w.close()
	var ev event
	for s.ended == nil {
		ok, err := w.next(&ev)
		if err != nil || !ok {
			return false, err
		}
		t := s.threads[ev.tid]
		switch {
		case t == nil && ev.ended():
			consume(ev.tid)
		case t == nil:
			s.early[ev.tid] = true
			err = s.adopt(ev.tid)
		case ev.ended():
			s.reap(&ev)
		case ev.trace() == unix.PTRACE_EVENT_STOP && t.born != 0:
			err = s.arrived(t)
		case ev.trace() == unix.PTRACE_EVENT_STOP:
			err = s.resume(t, 0)
		case ev.trace() != 0:
			err = s.born(t, &ev)
		default:
			err = s.resume(t, ev.sig())
		}
		if err != nil && !gone(err) {
			return false, err
		}
	}
	return true, nil
}

// reopen opens the memory of the program that has replaced the helper.
func (s *session) reopen() error {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", s.pid), os.O_RDWR, 0)
	if err != nil {
		return attachError(s.pid, errors.Unwrap(err))
	}
	err = s.mem.Close()
	s.mem = mem
	return err
}

// atEntry is AT_ENTRY of elf.h.
const atEntry = 9

func entryPoint(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", pid))
	if err != nil {
		return 0, err
	}
	for ; len(b) >= 16; b = b[16:] {
		if binary.LittleEndian.Uint64(b) == atEntry {
			return binary.LittleEndian.Uint64(b[8:]), nil
		}
	}
	return 0, errors.New("the program has no entry point in its auxiliary vector")
}

// runTo lets the only thread of a new program run to an address, by a
// breakpoint instruction that is removed again. It ends in an event stop.
func (s *session) runTo(t *tracee, addr uint64) error {
	old := make([]byte, len(breakCode))
	if _, err := s.mem.ReadAt(old, int64(addr)); err != nil {
		return fmt.Errorf("read the entry point: %w", err)
	}
	if _, err := s.mem.WriteAt(breakCode, int64(addr)); err != nil {
		return fmt.Errorf("set a breakpoint at the entry point: %w", err)
	}
	for range maxDetours {
		if err := s.resume(t, 0); err != nil {
			return err
		}
		var ev event
		if err := one(t.tid, &ev, startTimeout); err != nil {
			return err
		}
		if ev.ended() {
			s.reap(&ev)
			return nil
		}
		consume(t.tid)
		t.stopped = true
		if ev.status != int(unix.SIGTRAP) {
			if ev.trace() == 0 {
				if err := s.resume(t, ev.sig()); err != nil {
					return err
				}
			}
			continue
		}
		var r userRegs
		if err := getRegs(t.tid, &r); err != nil {
			return err
		}
		if *pcOf(&r) != addr+breakAfter {
			continue
		}
		*pcOf(&r) = addr
		_, err := s.mem.WriteAt(old, int64(addr))
		return errors.Join(err, setRegs(t.tid, &r), s.toEventStop(t))
	}
	return ErrNotStopping
}
