package ptrace

import (
	"errors"
	"time"
)

// release stops everything, removes what was put into the target, and detaches.
func (s *session) release() error {
	errs := s.fault
	s.fault, s.since = nil, time.Time{}
	if s.ended == nil {
		errs = errors.Join(errs, s.stopAll())
	}
	eng := s.eng
	if eng != nil && s.ended == nil {
		errs = errors.Join(errs, ignoreGone(eng.disarm()))
	}
	for _, t := range s.threads {
		if eng != nil {
			eng.dropThread(t)
		}
	}
	s.eng = nil // so that threads that appear from here on get no breakpoints
	errs = errors.Join(errs, s.close())
	if eng != nil {
		eng.lost() // not before: it takes time, and the target runs again
	}
	return errs
}

// finishSent lets the thread that has been sent go, follows it until it has done
// what it was sent for, and stops it to be detached. The others stand until it
// has: a child that one of them forked would inherit what is being removed.
func (s *session) finishSent() error {
	t := s.sent
	s.sent = nil
	err := s.resume(t, 0)
	if len(s.threads) == 1 {
		s.hasStood()
	}
	err = errors.Join(err, s.await(t, "the page to be unmapped", func() (bool, error) { return !s.mapped(s.gone), nil }))
	for _, o := range s.threads {
		if o != t {
			err = errors.Join(err, s.letGo(o))
		}
	}
	s.hasStood()
	if s.threads[t.tid] == t {
		_ = interrupt(t.tid)
		err = errors.Join(err, s.settle(t))
	}
	return ignoreGone(err)
}

// letGo detaches from a thread that stands still.
func (s *session) letGo(t *tracee) error {
	if !t.stopped {
		return nil
	}
	delete(s.threads, t.tid)
	return ignoreGone(detach(t.tid))
}

// close detaches from every thread. It expects them to stand still; one that
// doesn't is detached by the end of this OS thread.
func (s *session) close() error {
	var errs error
	if s.sent != nil && s.ended == nil {
		errs = s.finishSent()
	}
	for tid, t := range s.threads {
		errs = errors.Join(errs, s.letGo(t))
		delete(s.threads, tid)
	}
	s.hasStood()
	if s.mem != nil {
		errs = errors.Join(errs, s.mem.Close())
		s.mem = nil
	}
	return errs
}
