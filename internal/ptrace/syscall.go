package ptrace

import (
	"fmt"
	"slices"
)

// bySyscall is the engine that stops at system calls instead of functions: for
// programs that have the C library linked in and no name for its functions. It
// leaves nothing in the target. Each system call, whichever it is, costs the
// worker two stops, so the pause budget matters more than with the others.
type bySyscall struct {
	s   *session
	bps []Breakpoint
}

func newBySyscall(s *session, bps []Breakpoint) *bySyscall { return &bySyscall{s: s, bps: bps} }

func (e *bySyscall) prepare() error {
	for _, bp := range e.bps {
		if bp.Syscall < 0 {
			return fmt.Errorf("%s: %w: it is no system call", bp.Name, ErrUnsupported)
		}
	}
	return nil
}

func (e *bySyscall) arm() error {
	t := e.s.usable()
	for _, v := range e.s.vehicles() {
		if t != nil {
			break
		}
		_ = interrupt(v.tid)
		_ = e.s.settle(v) // another one may do
		t = e.s.usable()
	}
	if t == nil {
		return e.s.noThread()
	}
	if _, _, err := enteredCall(t.tid); err != nil && !gone(err) {
		return fmt.Errorf("%w: %w (it needs Linux 5.3)", ErrUnsupported, err)
	}
	e.s.hasStood()
	return e.unpause() // the one that stands is resumed with the observation
}

func (e *bySyscall) pause() error {
	e.s.perCall = false
	return nil
}

// unpause has every thread stop once, so that it is resumed the other way.
func (e *bySyscall) unpause() error {
	e.s.perCall = true
	for _, t := range e.s.threads {
		if !t.stopped {
			_ = interrupt(t.tid)
		}
	}
	return nil
}

func (e *bySyscall) disarm() error           { return e.pause() }
func (e *bySyscall) addThread(*tracee) error { return nil }
func (e *bySyscall) dropThread(*tracee)      {}
func (e *bySyscall) inMemory() bool          { return false }
func (e *bySyscall) forked(*tracee) error    { return nil }
func (e *bySyscall) lost()                   { e.s.perCall = false }

// hit is asked about signals only; see entered for system calls.
func (e *bySyscall) hit(*tracee, *userRegs) (int, error) { return notOurs, nil }

// entered looks at a system call stop. It is notOurs on the way out of a call,
// and for calls that nobody asked about.
func (e *bySyscall) entered(t *tracee, r *userRegs) (int, error) {
	nr, ok, err := enteredCall(t.tid)
	if err != nil || !ok {
		return notOurs, err
	}
	bp := slices.IndexFunc(e.bps, func(b Breakpoint) bool { return uint64(b.Syscall) == nr })
	if bp < 0 {
		return notOurs, nil
	}
	if err := getRegs(t.tid, r); err != nil {
		return notOurs, err
	}
	asFunction(r)
	return bp, nil
}

func (e *bySyscall) original(*userRegs)                 {}
func (e *bySyscall) pass(*tracee, int, *userRegs) error { return nil }
func (e *bySyscall) rewind(*tracee, *userRegs) error    { return nil }
