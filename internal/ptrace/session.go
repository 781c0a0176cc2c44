package ptrace

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/proc"
)

const (
	// maxRounds bounds how often the list of threads is read again because
	// new ones appeared while the known ones were being seized.
	maxRounds = 100
	// maxDetours bounds how many signals and events one thread may show
	// before it stands still on request.
	maxDetours = 10_000
	// stopTimeout is how long a thread may take to stand still. A thread in
	// uninterruptible sleep (state D) never does.
	stopTimeout = 500 * time.Millisecond
)

// tracee is one thread of the target, or a vfork child that borrows its memory.
type tracee struct {
	tid     int
	stopped bool // stands still and is ours to resume
	group   bool // … in a group stop: resumed by PTRACE_LISTEN
	sample  bool // an interrupt for a sample is under way
	// stepFrom is the address from which hwbp_arm64.go has it resumed by a step.
	stepFrom uint64
	child    bool  // not a thread of the target
	fds      []int // perf events of this thread
}

// session is everything that one tracer thread holds of one process.
type session struct {
	pid     int
	mem     *os.File // /proc/PID/mem
	threads map[int]*tracee
	early   map[int]bool // stopped before their parent's event announced them
	seized  int          // the most threads at a time
	ended   *EndReason   // set once the target has ended or replaced its program
	exit    Exit
	eng     engine // nil without breakpoints, and while disarmed for good
	net     *net
	code    borrowed // zero until it is needed
	perCall bool     // threads are resumed up to their next system call
	fault   error    // a handler's panic
}

func newSession(pid int) *session {
	return &session{pid: pid, threads: map[int]*tracee{}, early: map[int]bool{}}
}

// urgent is the nice value of the tracing thread, which ends with the call.
const urgent = -10

// attach seizes every thread. They keep running.
func (s *session) attach() error {
	// While a thread stands still this one is all that matters. Refused
	// without CAP_SYS_NICE, which costs time only.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, urgent)
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", s.pid), os.O_RDWR, 0)
	if err != nil {
		return attachError(s.pid, errors.Unwrap(err))
	}
	s.mem = mem
	for range maxRounds {
		tids, err := threadsOf(s.pid)
		if err != nil {
			return attachError(s.pid, unix.ESRCH)
		}
		news := 0
		for _, tid := range tids {
			if s.threads[tid] != nil {
				continue
			}
			if err := seize(tid); err != nil {
				// EPERM is also what a thread gives that ends right now, and
				// one that was attached automatically as a clone.
				if (gone(err) || errors.Is(err, unix.EPERM)) && len(s.threads) > 0 {
					continue
				}
				return attachError(s.pid, err)
			}
			s.add(tid)
			news++
		}
		if news == 0 {
			return nil
		}
	}
	return &proc.Error{PID: s.pid, What: "attach to all threads", Err: ErrThreads}
}

func (s *session) add(tid int) *tracee {
	t := &tracee{tid: tid}
	s.threads[tid] = t
	s.seized = max(s.seized, len(s.threads))
	return t
}

func threadsOf(pid int) ([]int, error) {
	d, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	tids := make([]int, 0, len(names))
	for _, n := range names {
		if tid, err := strconv.Atoi(n); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, err
}

// resume lets a thread that stands still run on, delivering sig.
func (s *session) resume(t *tracee, sig int) error {
	var err error
	switch {
	case t.group && sig == 0:
		err = listen(t.tid)
	case s.perCall && !t.child:
		err = toSyscall(t.tid, sig)
	case t.stepFrom != 0:
		err = stepOn(t, sig)
	default:
		err = cont(t.tid, sig)
	}
	t.stopped, t.group = false, false
	if gone(err) {
		return nil // killed meanwhile; its end is reported by the next wait
	}
	return err
}

// stopAll brings every thread to a stop that has nothing pending: signals
// found on the way are delivered, breakpoints hit are counted as unseen.
// Threads that don't stop in time stay running and are named in the error.
// Children come last: a thread that waits for its vfork child can't stop, and
// must not be kept from it.
func (s *session) stopAll() error {
	_, err := s.stopSome(false)
	waits, err2 := s.stopSome(true)
	if waits {
		err = nil // one that waits for a child; it can do nothing until then
	}
	return errors.Join(err, err2)
}

// stopSome stops the threads, or the children, and reports whether there were any.
func (s *session) stopSome(children bool) (any bool, late error) {
	for _, t := range s.threads {
		if !t.stopped && t.child == children {
			// ESRCH: it is ending; the wait below sees that.
			_ = interrupt(t.tid)
		}
	}
	// Threads that appear meanwhile are added to the map, so go on until a
	// whole round finds nothing to wait for.
	tried := map[int]bool{}
	for again := true; again; {
		again = false
		for tid, t := range s.threads {
			if t.child == children {
				any = true
			}
			if t.stopped || tried[tid] || t.child != children {
				continue
			}
			tried[tid], again = true, true
			if err := s.settle(t); err != nil {
				late = errors.Join(late, fmt.Errorf("thread %d: %w", tid, err))
			}
		}
	}
	return any, late
}

// settle waits until t stands in an event stop or has ended.
func (s *session) settle(t *tracee) error {
	var ev event
	for range maxDetours {
		if err := s.oneOf(t, &ev); err != nil {
			if errors.Is(err, unix.ECHILD) { // ended, or its thread called exec
				s.drop(t)
				return nil
			}
			return err
		}
		if err := s.absorb(t, &ev); err != nil || t.stopped || s.threads[t.tid] != t {
			return err
		}
	}
	return ErrNotStopping
}

// oneOf waits for an event of t while its children go on.
func (s *session) oneOf(t *tracee, ev *event) error {
	for until := time.Now().Add(stopTimeout); ; {
		children := s.children()
		if t.child || len(children) == 0 {
			return one(t.tid, ev, time.Until(until))
		}
		err := one(t.tid, ev, time.Millisecond)
		if !errors.Is(err, ErrNotStopping) || time.Now().After(until) {
			return err
		}
		for _, c := range children {
			var cev event
			if peek(c.tid, &cev) {
				if err := s.goOn(c, &cev); err != nil && !gone(err) {
					return err
				}
			}
		}
	}
}

func (s *session) children() []*tracee {
	var out []*tracee
	for _, t := range s.threads {
		if t.child && !t.stopped {
			out = append(out, t)
		}
	}
	return out
}

// goOn handles an event of a child that is to run on.
func (s *session) goOn(c *tracee, ev *event) error {
	switch {
	case ev.ended():
		s.reap(ev)
		return nil
	case ev.trace() == unix.PTRACE_EVENT_STOP:
		c.group = ev.sig() != int(unix.SIGTRAP)
		return s.resume(c, 0)
	case ev.trace() != 0:
		return s.born(c, ev)
	case ev.sig() == int(unix.SIGTRAP) && s.eng != nil:
		var regs userRegs
		bp, err := s.eng.hit(c, &regs)
		if err != nil {
			return err
		}
		if bp >= 0 {
			return errors.Join(s.eng.pass(c, bp, &regs), s.resume(c, 0))
		}
	}
	return s.deliver(c, ev.sig())
}

// absorb handles an event while everything is being stopped, so that nothing
// is shown to the handler.
func (s *session) absorb(t *tracee, ev *event) error {
	switch {
	case ev.ended():
		s.reap(ev)
		return nil
	case ev.trace() == unix.PTRACE_EVENT_STOP:
		consume(t.tid)
		t.stopped, t.group, t.sample = true, ev.sig() != int(unix.SIGTRAP), false
		if s.eng != nil && trapPending(t.tid) {
			// The event stop came before the breakpoint's signal. Let the
			// thread meet it: it is taken at the signal stop that follows,
			// which a group stop does not hold up either.
			t.group = false
			return s.resume(t, 0)
		}
		return nil
	case ev.trace() != 0:
		return s.born(t, ev)
	case ev.syscallStop():
		_ = interrupt(t.tid)
		return s.resume(t, 0)
	}
	if s.eng != nil && ev.sig() == int(unix.SIGTRAP) {
		var regs userRegs
		bp, err := s.eng.hit(t, &regs)
		if err != nil && !gone(err) {
			return err
		}
		if bp != notOurs {
			if bp >= 0 {
				err = s.eng.rewind(t, &regs)
			}
			_ = interrupt(t.tid) // the first may have been spent before the signal
			return errors.Join(ignoreGone(err), s.resume(t, 0))
		}
	}
	_ = interrupt(t.tid)
	return s.deliver(t, ev.sig())
}

func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// deliver passes on a signal that is not ours.
func (s *session) deliver(t *tracee, sig int) error {
	if sig == int(unix.SIGTRAP) && s.net != nil && !t.child {
		// It must meet the action the worker had, not the net.
		if err := s.net.suspend(s, t); err != nil && !gone(err) {
			return err
		}
	}
	return s.resume(t, sig)
}

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
		errs = s.newTask(msg, ev.trace(), t.child)
	}
	return errors.Join(errs, s.resume(t, 0))
}

// newTask takes over a thread or child that the kernel attached automatically.
func (s *session) newTask(tid, how int, ofChild bool) error {
	thread := how == unix.PTRACE_EVENT_CLONE && !ofChild && sameProcess(s.pid, tid)
	t := s.add(tid)
	t.child = !thread
	var ev event
	if s.early[tid] {
		delete(s.early, tid)
		t.stopped = true
		return s.placed(t, how, thread)
	}
	if err := one(tid, &ev, stopTimeout); err != nil {
		if errors.Is(err, unix.ECHILD) {
			s.drop(t)
			return nil
		}
		return fmt.Errorf("new thread %d: %w", tid, err)
	}
	if ev.ended() {
		s.reap(&ev)
		return nil
	}
	consume(tid)
	t.stopped = true
	t.group = ev.trace() == unix.PTRACE_EVENT_STOP && ev.sig() != int(unix.SIGTRAP)
	return s.placed(t, how, thread)
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
	var err error
	if s.net != nil {
		err = ignoreGone(s.net.removeFrom(s, t, shares))
	}
	if shares && s.eng != nil && s.eng.inMemory() {
		return errors.Join(err, s.resume(t, 0))
	}
	if s.eng != nil && s.eng.inMemory() {
		err = errors.Join(err, s.eng.forked(t))
	}
	err = errors.Join(err, ignoreGone(detach(t.tid)))
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
		err := ignoreGone(detach(t.tid))
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
	return nil
}

// reap takes the end of a thread, and notes it when it was the target's.
func (s *session) reap(ev *event) {
	t := s.threads[ev.tid]
	if t == nil {
		return
	}
	consume(ev.tid)
	s.drop(t)
	if ev.tid != s.pid {
		return
	}
	end := EndExited
	s.ended = &end
	s.exit = Exit{Known: true}
	if ev.code == cldExited {
		s.exit.Status = ev.status
	} else {
		s.exit.Signal = unix.Signal(ev.status & 0x7f)
	}
}

// drop forgets a thread that is no more.
func (s *session) drop(t *tracee) {
	if s.eng != nil {
		s.eng.dropThread(t)
	}
	t.stopped = false
	delete(s.threads, t.tid)
}

// usable returns a thread of the target that can be made to run injected
// calls. One in a group stop will do when there is no other: the kernel lets
// it run for its tracer, and stops it again at the next event stop.
func (s *session) usable() *tracee {
	var last *tracee
	for _, t := range s.threads {
		if t.stopped && !t.child {
			if last = t; !t.group {
				break
			}
		}
	}
	return last
}

// resumeAll lets everything run on that stands still.
func (s *session) resumeAll() error {
	var errs error
	for _, t := range s.threads {
		if t.stopped {
			errs = errors.Join(errs, s.resume(t, 0))
		}
	}
	return errs
}

// adopt takes a new thread's first stop off the wait, and leaves it standing.
func (s *session) adopt(tid int) error {
	consume(tid)
	return nil
}

// release stops everything, removes what was put into the target, and detaches.
func (s *session) release() error {
	errs := s.fault
	s.fault = nil
	if s.eng != nil && s.ended == nil {
		errs = errors.Join(errs, s.stopAll())
		if s.ended == nil {
			errs = errors.Join(errs, ignoreGone(s.eng.disarm()))
		} else {
			s.eng.lost()
		}
	} else if s.ended == nil {
		errs = errors.Join(errs, s.stopAll())
	}
	return errors.Join(errs, s.close())
}

// close detaches from every thread. It expects them to stand still; one that
// doesn't is detached by the end of this OS thread.
func (s *session) close() error {
	var errs error
	for tid, t := range s.threads {
		if t.stopped {
			errs = errors.Join(errs, ignoreGone(detach(tid)))
		}
		if s.eng != nil {
			s.eng.dropThread(t)
		}
		delete(s.threads, tid)
	}
	if s.mem != nil {
		errs = errors.Join(errs, s.mem.Close())
		s.mem = nil
	}
	return errs
}
