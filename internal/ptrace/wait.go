package ptrace

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// CLD_* of uapi/asm-generic/siginfo.h.
const (
	cldExited  = 1
	cldKilled  = 2
	cldDumped  = 3
	cldTrapped = 4
)

// event is a state change of a traced thread. Stops are only peeked at
// (WNOWAIT): while the kernel holds the exit code of a signal stop, the signal
// is delivered when the tracer dies, which is what net.go relies on.
type event struct {
	tid    int
	code   int // CLD_*
	status int // exit status, or signal | ptrace event << 8
}

func (e *event) ended() bool { return e.code >= cldExited && e.code <= cldDumped }
func (e *event) sig() int    { return e.status & 0xff } // SIGTRAP|0x80 is a system call stop
func (e *event) trace() int  { return e.status >> 8 }

// syscallStop reports a stop made by toSyscall (PTRACE_O_TRACESYSGOOD).
func (e *event) syscallStop() bool { return e.code == cldTrapped && e.status == int(unix.SIGTRAP)|0x80 }

// unblockable returns SIGSTOP when that is what the thread is about to get:
// the one signal that a mask can't keep from coming in between.
func (e *event) unblockable() int {
	if e.code == cldTrapped && e.status == int(unix.SIGSTOP) {
		return e.status
	}
	return 0
}

// The reasons to end a wait early.
const (
	wakeCancel uint32 = 1 << iota
	wakeDeadline
	wakeSample
	wakeRearm
)

// wakeSignal interrupts the wait. Nobody else uses the last real-time signal.
const wakeSignal = unix.Signal(64)

const (
	// spins is how often the hot path asks without sleeping. Often the worker
	// is at its next breakpoint by the time it is asked. Asking on for longer
	// does not pay: the kernel runs the two by turns on one processor as long as
	// the tracer sleeps in between, which costs 7 µs a turn, and 30 when each
	// has its own and wakes the other.
	spins = 4
	// wakeAgain is the time after which a wake-up that came between two waits
	// is repeated.
	wakeAgain = 200 * time.Microsecond
)

// waiter waits for the threads that the current OS thread traces, and can be
// woken. It never takes the exit status of anyone else's child.
type waiter struct {
	tid     int // OS thread of the tracer
	pending atomic.Uint32
	spin    int
	stop    chan struct{}
	wg      sync.WaitGroup
}

func newWaiter() (*waiter, error) {
	w := &waiter{tid: unix.Gettid(), stop: make(chan struct{}), spin: spins}
	return w, tameSignals()
}

// wake sets the bits and interrupts the wait until the tracer has seen them.
// It is called by other goroutines.
func (w *waiter) wake(bits uint32) {
	w.pending.Or(bits)
	for w.pending.Load()&bits != 0 {
		// An error means that the thread has ended; stop is closed then too.
		_ = unix.Tgkill(os.Getpid(), w.tid, wakeSignal)
		select {
		case <-w.stop:
			return
		case <-time.After(wakeAgain):
		}
	}
}

// start runs the clock: cancellation, deadline and samples become wake-ups.
func (w *waiter) start(ctx context.Context, limit, every time.Duration) {
	var deadline, tick <-chan time.Time
	if limit > 0 {
		deadline = time.After(limit)
	}
	var ticker *time.Ticker
	if every > 0 {
		ticker = time.NewTicker(every)
		tick = ticker.C
	}
	w.wg.Go(func() {
		if ticker != nil {
			defer ticker.Stop()
		}
		done := ctx.Done()
		for {
			select {
			case <-w.stop:
				return
			case <-done:
				w.wake(wakeCancel)
				done = nil
			case <-deadline:
				w.wake(wakeDeadline)
			case <-tick:
				w.wake(wakeSample)
			}
		}
	})
}

// after wakes the tracer once, in d.
func (w *waiter) after(d time.Duration, bits uint32) {
	w.wg.Go(func() {
		select {
		case <-w.stop:
		case <-time.After(d):
			w.wake(bits)
		}
	})
}

// close ends the helpers and waits for them.
func (w *waiter) close() {
	close(w.stop)
	w.wg.Wait()
}

const anyOptions = unix.WSTOPPED | unix.WEXITED | unix.WNOWAIT | unix.WALL | unix.WNOTHREAD

// next waits for any traced thread. It returns false when it was woken.
func (w *waiter) next(ev *event) (bool, error) {
	var ci childInfo
	for i := 0; ; i++ {
		if w.pending.Load() != 0 {
			return false, nil
		}
		err := waitid(unix.P_ALL, 0, &ci, anyOptions, i >= w.spin)
		switch {
		case err != nil && errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return false, err
		case ci.PID != 0:
			*ev = event{tid: int(ci.PID), code: int(ci.Code), status: int(ci.Status)}
			return true, nil
		}
	}
}

// peek looks for a single thread's event without waiting.
func peek(tid int, ev *event) bool {
	var ci childInfo
	err := waitid(unix.P_PID, tid, &ci, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT|unix.WALL, false)
	*ev = event{tid: tid, code: int(ci.Code), status: int(ci.Status)}
	return err == nil && ci.PID != 0
}

const (
	// looks is how often a single thread is looked at before it is slept for: one
	// that runs stops within microseconds. Looking on for longer would keep a
	// thread that has to be woken from the processor that it is to stop on.
	looks = 20
	// shortWait is a time that is slept through in naps of up to maxNap, rather
	// than have another goroutine keep the time.
	shortWait = 5 * time.Millisecond
	maxNap    = 500 * time.Microsecond
)

// one waits for a single thread, at most for d.
func one(tid int, ev *event, d time.Duration) error {
	for range looks {
		if ok, err := ask(tid, ev, false); ok || err != nil {
			return err
		}
	}
	until := time.Now().Add(d)
	for nap := 20 * time.Microsecond; d <= shortWait; nap = min(2*nap, maxNap) {
		// time.Sleep would have another of Go's threads look at the clock and wake this
		// one, which on a busy host takes long: those do not have this one's priority.
		ts := unix.NsecToTimespec(int64(nap))
		_ = unix.Nanosleep(&ts, nil)
		if ok, err := ask(tid, ev, false); ok || err != nil {
			return err
		}
		if time.Now().After(until) {
			return ErrNotStopping
		}
	}
	defer interruptAt(until)()
	for {
		if ok, err := ask(tid, ev, true); ok || err != nil {
			return err
		}
		if time.Now().After(until) {
			return ErrNotStopping
		}
	}
}

// ask asks for a thread's event. ok is false for none, or when a signal came.
func ask(tid int, ev *event, block bool) (ok bool, err error) {
	var ci childInfo
	err = waitid(unix.P_PID, tid, &ci, unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT|unix.WALL, block)
	switch {
	case errors.Is(err, unix.EINTR):
		return false, nil
	case err != nil:
		return false, err
	}
	*ev = event{tid: tid, code: int(ci.Code), status: int(ci.Status)}
	return ci.PID != 0, nil
}

// interruptAt interrupts the calling OS thread's wait at a time, and again until
// the function is called that it returns.
func interruptAt(until time.Time) (stop func()) {
	tid, done := unix.Gettid(), make(chan struct{})
	t := time.AfterFunc(time.Until(until), func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), tid, wakeSignal)
				time.Sleep(wakeAgain)
			}
		}
	})
	return func() { t.Stop(); close(done) }
}

// consume takes a state change, so that next does not report it again.
func consume(tid int) {
	var ci childInfo
	_ = waitid(unix.P_PID, tid, &ci, unix.WSTOPPED|unix.WEXITED|unix.WALL, false)
}

// tameSignals prepares this process's signals for waiting.
func tameSignals() error { return errors.Join(makeInterrupting(wakeSignal), endStopSignals()) }
