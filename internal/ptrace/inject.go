package ptrace

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// call is a system call to inject. Data is written into the target's memory
// for it, and read back afterwards; args that are in data start at dataBit.
type call struct {
	nr   uint64
	args []uint64
	data []byte
}

// inData marks an argument as an offset into a call's data.
const inData = 1 << 63

// have has any one thread make the calls while the others run. It returns the
// thread that is on its way, nil when the calls have been made.
func (s *session) have(calls ...call) (*tracee, error) {
	var errs error
	for _, t := range s.vehicles() {
		if t.stopped { // and is to stay so: a program at its start
			return nil, s.injectAll(t, calls)
		}
		_ = interrupt(t.tid)
		if err := s.settle(t); err != nil {
			errs = errors.Join(errs, err) // another one may do
			continue
		}
		if s.ended != nil || s.threads[t.tid] != t {
			continue
		}
		sent, err := s.send(t, calls...)
		if err == nil && !sent {
			err = s.injectAll(t, calls)
		}
		err = errors.Join(err, s.resume(t, 0))
		s.hasStood()
		switch {
		case err == nil && sent:
			return t, nil
		case !errors.Is(err, ErrNoRoom):
			return nil, err
		}
		errs = errors.Join(errs, err)
	}
	if errs == nil {
		errs = s.noThread()
	}
	return nil, errs
}

func (s *session) injectAll(t *tracee, calls []call) error {
	for i := range calls {
		if _, err := s.inject(t, &calls[i]); err != nil {
			return err
		}
	}
	return nil
}

// vehicles are the threads that may be made to run calls, the main one first.
func (s *session) vehicles() []*tracee {
	var out []*tracee
	for tid, t := range s.threads {
		if t.child {
			continue
		}
		if out = append(out, t); tid == s.pid {
			out[0], out[len(out)-1] = out[len(out)-1], out[0]
		}
	}
	return out
}

// memoryOf returns the memory that a thread or child runs in.
func (s *session) memoryOf(t *tracee) (*os.File, func(), error) {
	if !t.child {
		return s.mem, func() {}, nil
	}
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", t.tid), os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	return f, func() { _ = f.Close() }, nil
}

func (s *session) toEventStop(t *tracee) error { return s.eventStop(t, 0) }

// eventStop delivers a signal, unless it is 0, and runs up to an event stop.
func (s *session) eventStop(t *tracee, sig int) error {
	if err := interrupt(t.tid); err != nil {
		return err
	}
	for range maxInjectStops {
		if err := cont(t.tid, sig); err != nil {
			return err
		}
		ev, err := s.nextOf(t)
		if err != nil {
			return err
		}
		if ev.trace() == unix.PTRACE_EVENT_STOP {
			t.group = ev.sig() != int(unix.SIGTRAP)
			return nil
		}
		if sig = 0; ev.trace() == 0 && !ev.syscallStop() {
			sig = ev.sig()
		}
	}
	return ErrNotStopping
}

// nextOf waits for one thread and takes the event. The end of the thread is ESRCH.
func (s *session) nextOf(t *tracee) (event, error) {
	var ev event
	if err := patiently(t.tid, &ev); err != nil {
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
