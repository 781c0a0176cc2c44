package ptrace

import (
	"errors"
	"fmt"

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

// choose arms the first engine that works.
func (s *session) choose(want string, bps []Breakpoint, guard bool) ([]EngineChoice, error) {
	names := []string{want}
	if want == "" || want == EngineAuto {
		names = []string{EngineHWBP, EngineInt3}
	}
	var why []EngineChoice
	var errs error
	for _, name := range names {
		var e engine
		switch name {
		case EngineHWBP:
			e = newHWBP(s, bps)
		case EngineInt3:
			e = newInt3(s, bps, guard)
		default:
			return why, fmt.Errorf("no engine %q: %w (known: %s, %s, %s)", name, ErrUnsupported, EngineAuto, EngineHWBP, EngineInt3)
		}
		s.eng = e
		err := e.arm()
		why = append(why, EngineChoice{Engine: name, Err: err})
		if err == nil {
			return why, nil
		}
		errs = errors.Join(errs, fmt.Errorf("engine %s: %w", name, err), e.disarm())
		s.eng = nil
		if gone(err) || s.ended != nil {
			break
		}
	}
	return why, &proc.Error{PID: s.pid, What: "set breakpoints in the memory", Err: errs}
}
