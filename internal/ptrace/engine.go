package ptrace

import (
	"errors"
	"fmt"
	"time"

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
	// prepare does what takes long and needs no standing target.
	prepare() error
	// arm sets the breakpoints in a target whose threads all stand still.
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
	// lost says that the target's program is gone and with it the breakpoints.
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

// choose arms the first engine that works, and leaves all threads standing.
// It returns how long they have stood.
func (s *session) choose(o *Options) (why []EngineChoice, stood time.Duration, err error) {
	names := []string{o.Engine}
	if o.Engine == "" || o.Engine == EngineAuto {
		names = []string{EngineHWBP, EngineInt3, EngineSyscall}
	}
	// Found while the target still runs. What fails here fails again in spread.
	_ = s.borrow()
	var errs error
	for _, name := range names {
		e, err := s.engineFor(name, o)
		if err != nil {
			return why, stood, err
		}
		d, err := s.try(e)
		stood += d
		why = append(why, EngineChoice{Engine: name, Err: err})
		if err == nil || s.ended != nil {
			return why, stood, err
		}
		errs = errors.Join(errs, fmt.Errorf("engine %s: %w", name, err))
		if gone(err) {
			break
		}
	}
	return why, stood, &proc.Error{PID: s.pid, What: "set breakpoints in the memory", Err: errs}
}

// try arms one engine and leaves all threads standing, or running when it
// does not work. It returns how long they have stood.
func (s *session) try(e engine) (time.Duration, error) {
	if err := e.prepare(); err != nil {
		return 0, err
	}
	from := time.Now()
	late := s.stopAll()
	if s.ended != nil {
		return time.Since(from), errors.Join(unix.ESRCH, e.disarm())
	}
	if s.usable() == nil && late != nil {
		return time.Since(from), errors.Join(fmt.Errorf("stop the threads: %w", late), e.disarm(), s.resumeAll())
	}
	// What is left by an earlier tracer and can't be removed is told by the
	// engine that it is in the way of.
	_ = s.reclaim()
	s.eng = e
	err := e.arm()
	if err != nil {
		s.eng = nil
		err = errors.Join(err, e.disarm(), s.resumeAll())
	}
	return time.Since(from), err
}
