package ptrace

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// expose unblocks SIGTRAP in the threads that block it, for as long as there
// are breakpoints: the kernel forces an int3's signal on a thread that blocks
// it, and takes the action away from the whole process for that
// (kernel/signal.c, force_sig_info_to_task), so that the next one kills when no
// tracer is there. The other signals stay as they are.
func (s *session) expose() error {
	for _, t := range s.vehicles() {
		if !t.masked() {
			continue
		}
		standing := t.stopped
		if !standing {
			_ = interrupt(t.tid)
			if err := s.settle(t); errors.Is(err, ErrNotStopping) {
				continue // it runs nothing that could hit a breakpoint, as it seems
			} else if err != nil {
				return fmt.Errorf("thread %d: %w", t.tid, err)
			}
		}
		if s.threads[t.tid] != t {
			continue
		}
		mask, err := getSigMask(t.tid)
		if err == nil && mask&trapMask != 0 {
			t.exposed = mask
			err = setSigMask(t.tid, mask&^trapMask)
		}
		if !standing {
			err = errors.Join(ignoreGone(err), s.resume(t, 0))
			s.hasStood()
		}
		if err != nil && !gone(err) {
			return err
		}
	}
	return nil
}

// cover undoes expose for the threads that stand still.
func (s *session) cover() error {
	var errs error
	for _, t := range s.threads {
		if t.stopped {
			errs = errors.Join(errs, ignoreGone(t.cover()))
		}
	}
	return errs
}

// trapMask is SIGTRAP in a signal mask.
const trapMask = 1 << (uint(unix.SIGTRAP) - 1)

// cover blocks SIGTRAP again in a thread that stands still and did so before,
// unless it has unblocked others since: one that was about to create a thread
// blocked them all for that moment.
func (t *tracee) cover() error {
	was := t.exposed
	if was == 0 {
		return nil
	}
	t.exposed = 0
	mask, err := getSigMask(t.tid)
	if err != nil || was&^trapMask&^mask != 0 {
		return err
	}
	return setSigMask(t.tid, mask|trapMask)
}

// masked reports whether the thread blocks SIGTRAP, standing or not.
func (t *tracee) masked() bool {
	m, ok := t.blocked()
	return ok && m&trapMask != 0
}

// blocked are the signals that the thread blocks. ok is false for one that is
// ending.
func (t *tracee) blocked() (mask uint64, ok bool) {
	m, err := strconv.ParseUint(statusField(t.tid, "SigBlk"), 16, 64)
	return m, err == nil
}

func (s *session) masked() bool { return slices.ContainsFunc(s.vehicles(), (*tracee).masked) }
