package ptrace

import (
	"errors"
	"fmt"
	"maps"
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
	born     int   // the event that told of it, until its first stop; then 0
	fds      []int // perf events of this thread
	// exposed is the mask of a thread that blocked SIGTRAP, and does again when
	// it is let go; 0 for others.
	exposed uint64
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
	held    bool     // the target stands still until it is armed
	sent    *tracee  // a thread that is to unmap the page that will be gone
	gone    uint64
	// since is when the first thread that stands now was seen to, and stood are
	// the times for which any have stood, other than for a handler.
	since   time.Time
	stood   []time.Duration
	perCall bool   // threads are resumed up to their next system call
	fault   error  // a handler's panic
	foreign string // a SIGTRAP that was passed on, for who asks why the target died
}

func newSession(pid int) *session {
	return &session{pid: pid, threads: map[int]*tracee{}, early: map[int]bool{}}
}

const (
	// first is the real-time priority of the tracing thread: the lowest, which goes
	// before everything that has none.
	first = 1
	// urgent is its nice value where it may not have one, and turn for how long it
	// computes at a time, as it tells the scheduler: who asks for little gets it soon.
	urgent = -10
	turn   = 100 * time.Microsecond
)

// hurry has the calling OS thread, which ends with the call, run as soon as it
// can: while a thread of the target stands still nothing else matters, and the
// less a busy host lets it run, the longer that one stands. A nice value alone
// does not do, since it counts only among the tasks of one session or group. It
// waits whenever nothing stands, so it can't keep a processor to itself. What is
// refused (priorities take CAP_SYS_NICE, a short turn Linux 6.12) costs time only.
func hurry() {
	rt := unix.SchedAttr{Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: first}
	if unix.SchedSetAttr(0, &rt, 0) == nil {
		return
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, urgent)
	if a, err := unix.SchedGetAttr(0, 0); err == nil && a.Policy == unix.SCHED_NORMAL {
		a.Runtime = uint64(turn)
		_ = unix.SchedSetAttr(0, a, 0)
	}
}

// attach seizes every thread. They keep running.
func (s *session) attach() error {
	hurry()
	if err := tameSignals(); err != nil {
		return err
	}
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
	asked := maps.Clone(s.threads)
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
			if asked[tid] != t {
				_ = interrupt(tid)
			}
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

// oneOf waits for an event of t. Meanwhile its children go on, and threads that
// end are reaped: until then a thread that calls exec waits for them.
func (s *session) oneOf(t *tracee, ev *event) error {
	if len(s.threads) == 1 {
		return patiently(t.tid, ev)
	}
	for p := newPatience(t.tid, stopTimeout); ; {
		err := one(t.tid, ev, time.Millisecond)
		// Threads that stand meanwhile would have to wait, too.
		if !errors.Is(err, ErrNotStopping) || p.over(s.since.IsZero()) {
			return err
		}
		for _, o := range s.threads {
			var oev event
			if o == t || o.stopped || !peek(o.tid, &oev) {
				continue
			}
			if oev.ended() {
				s.reap(&oev)
			} else if o.child && !t.child {
				if err := s.goOn(o, &oev); err != nil && !gone(err) {
					return err
				}
			}
		}
	}
}

// goOn handles an event of a child that is to run on.
func (s *session) goOn(c *tracee, ev *event) error {
	switch {
	case ev.ended():
		s.reap(ev)
		return nil
	case ev.trace() == unix.PTRACE_EVENT_STOP:
		c.group = ev.sig() != int(unix.SIGTRAP)
		if c.born != 0 {
			return s.arrived(c)
		}
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
		if bp == stale {
			return s.resume(c, 0)
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
		if how := t.born; t.child && how != 0 {
			t.born = 0
			return s.newChild(t, how)
		}
		if t.born != 0 && s.eng != nil {
			if err := ignoreGone(s.eng.addThread(t)); err != nil {
				return err
			}
		}
		t.born = 0
		if s.since.IsZero() {
			s.since = time.Now()
		}
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

// foreign describes the SIGTRAP at which a thread stands.
func foreign(tid int) string {
	var si trapInfo
	var r userRegs
	if err := errors.Join(getSigInfo(tid, &si), getRegs(tid, &r)); err != nil {
		return fmt.Sprintf("thread %d: %v", tid, err)
	}
	return fmt.Sprintf("thread %d at %#x, code %d", tid, *pcOf(&r), si.Code)
}

// deliver passes on a signal that is not ours.
func (s *session) deliver(t *tracee, sig int) error {
	if sig == int(unix.SIGTRAP) && s.foreign == "" {
		s.foreign = foreign(t.tid)
	}
	if sig == int(unix.SIGTRAP) && s.net != nil && !t.child {
		// It must meet the action the worker had, not the net.
		if err := s.net.suspend(s, t); err != nil && !gone(err) {
			return err
		}
	}
	return s.resume(t, sig)
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

// hasStood ends the time that was begun with the first thread's stop.
func (s *session) hasStood() {
	if !s.since.IsZero() {
		s.stood = append(s.stood, time.Since(s.since))
	}
	s.since = time.Time{}
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
