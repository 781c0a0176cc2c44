package ptrace

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/proc"
)

const (
	// notOurs is a SIGTRAP that the worker would have got without us.
	notOurs = -1
	// stale is a breakpoint's SIGTRAP that came too late: the thread has moved on.
	stale = -2
)

// engine makes threads stop at breakpoints. Its methods run on the tracer's
// thread. An engine that never stops the worker (uprobe) or stops it at every
// system call fits in beside it: hit is where a stop is recognised.
type engine interface {
	// prepare checks what can be checked, and does what takes long, before arm.
	prepare() error
	// arm sets the breakpoints while the target runs.
	arm() error
	// pause takes them out for a while and unpause puts them back, while
	// threads run.
	pause() error
	unpause() error
	// disarm removes everything, while all threads stand still. Twice is fine.
	disarm() error
	// addThread arms a new thread, dropThread frees what is kept for one.
	addThread(t *tracee) error
	dropThread(t *tracee)
	// inMemory reports whether the breakpoints are bytes in the target's
	// memory, and forked removes those from a child's copy.
	inMemory() bool
	forked(t *tracee) error
	// lost says that the breakpoints are gone: removed, or with the target's
	// program. Twice is fine.
	lost()
	// hit looks at a SIGTRAP stop. It returns the index of the breakpoint and
	// the registers with the program counter on it, or notOurs, or stale.
	hit(t *tracee, r *userRegs) (int, error)
	// original replaces a program counter that lies in code of ours.
	original(r *userRegs)
	// pass gets a thread past the breakpoint it was reported at, rewind puts it
	// back before it. Either leaves it to be resumed.
	pass(t *tracee, bp int, r *userRegs) error
	rewind(t *tracee, r *userRegs) error
}

// engineFor makes the engine of that name.
func (s *session) engineFor(name string, o *Options) (engine, error) {
	switch name {
	case EngineHWBP:
		return newHWBP(s, o.Breakpoints), nil
	case EngineInt3:
		return newInt3(s, o.Breakpoints, !o.NoGuard), nil
	case EngineSyscall:
		return newBySyscall(s, o.Breakpoints), nil
	}
	return nil, fmt.Errorf("no engine %q: %w (known: %s, %s, %s, %s)", name, ErrUnsupported, EngineAuto, EngineHWBP, EngineInt3, EngineSyscall)
}

// choose arms the first engine that works.
func (s *session) choose(o *Options) (why []EngineChoice, err error) {
	names := []string{o.Engine}
	if o.Engine == "" || o.Engine == EngineAuto {
		names = []string{EngineHWBP, EngineInt3, EngineSyscall}
	}
	var errs error
	for _, name := range names {
		e, err := s.engineFor(name, o)
		if err != nil {
			return why, err
		}
		err = s.try(e)
		why = append(why, EngineChoice{Engine: name, Err: err})
		if err == nil || s.ended != nil {
			return why, err
		}
		errs = errors.Join(errs, fmt.Errorf("engine %s: %w", name, err))
		if gone(err) {
			break
		}
	}
	return why, &proc.Error{PID: s.pid, What: "set breakpoints in the memory", Err: errs}
}

// try arms one engine. When it does not work nothing is left of it.
func (s *session) try(e engine) error {
	if err := e.prepare(); err != nil {
		return err
	}
	s.eng = e
	err := e.arm()
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.EIO) {
		// Its memory is gone: it has ended or called exec, and the event waits.
		_ = s.stopAll()
		_ = s.resumeAll()
		s.hasStood()
	}
	if s.ended != nil {
		e.lost()
		s.eng = nil
		return unix.ESRCH
	}
	if s.net != nil && s.net.Page != 0 && !s.held {
		err = errors.Join(err, s.stopAll(), e.disarm(), s.resumeAll())
		s.hasStood()
	} else {
		err = errors.Join(err, e.disarm())
	}
	e.lost()
	s.eng = nil
	return err
}
