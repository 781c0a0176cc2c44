package ptrace

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// born handles PTRACE_EVENT_CLONE, _FORK, _VFORK, _EXEC.
func (s *session) born(t *tracee, ev *event) error {
	if ev.trace() == unix.PTRACE_EVENT_EXEC {
		return s.execed(t)
	}
	msg, err := getEventMsg(t.tid)
	if err != nil {
		return ignoreGone(err)
	}
	var errs error
	if msg > 0 {
		errs = s.newTask(msg, ev.trace(), t)
	}
	return errors.Join(errs, s.resume(t, 0))
}

// newTask takes over a thread or child that the kernel attached automatically.
// Its first stop may have come before, or is yet to come.
func (s *session) newTask(tid, how int, parent *tracee) error {
	thread := how == unix.PTRACE_EVENT_CLONE && !parent.child && sameProcess(s.pid, tid)
	t := s.add(tid)
	t.child, t.exposed = !thread, parent.exposed // masks are inherited
	t.born = how
	if s.early[tid] {
		delete(s.early, tid)
		return s.arrived(t)
	}
	return nil
}

// arrived handles the first stop of a new task.
func (s *session) arrived(t *tracee) error {
	how := t.born
	t.born, t.stopped = 0, true
	return s.placed(t, how, !t.child)
}

// placed arms a new thread that stands still, or restores a new child.
func (s *session) placed(t *tracee, how int, thread bool) error {
	if thread {
		var err error
		if s.eng != nil {
			err = ignoreGone(s.eng.addThread(t))
		}
		return errors.Join(err, s.resume(t, 0))
	}
	return s.newChild(t, how)
}

// newChild restores in a child what it inherited, and lets it go. A child that
// shares the memory (vfork, posix_spawn) can still run into an int3, so it is
// kept until it calls exec.
func (s *session) newChild(t *tracee, how int) error {
	shares := how != unix.PTRACE_EVENT_FORK
	if shares && s.eng != nil && s.eng.inMemory() {
		return s.resume(t, 0)
	}
	var err error
	if s.eng != nil && s.eng.inMemory() {
		err = s.eng.forked(t) // before the net, which is for just these bytes
	}
	if s.net != nil {
		err = errors.Join(err, ignoreGone(s.net.removeFrom(s, t, shares)))
	}
	err = errors.Join(err, ignoreGone(t.cover()), ignoreGone(detach(t.tid)))
	delete(s.threads, t.tid)
	return err
}

// sameProcess reports whether tid is a thread of pid.
func sameProcess(pid, tid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", pid, tid))
	return err == nil
}

// execed handles a program that replaced itself. The kernel has ended all
// other threads and given the caller the process's id.
func (s *session) execed(t *tracee) error {
	t.stopped = true
	consume(t.tid)
	if t.child {
		err := errors.Join(ignoreGone(t.cover()), ignoreGone(detach(t.tid)))
		delete(s.threads, t.tid)
		return err
	}
	for _, o := range s.threads {
		if o != t && !o.child {
			s.drop(o)
		}
	}
	end := EndExec
	s.ended = &end
	if s.eng != nil {
		s.eng.dropThread(t)
		s.eng.lost()
	}
	s.net, s.code = nil, borrowed{} // exec has reset the action and dropped the page
	return ignoreGone(t.cover())    // and kept the mask
}
