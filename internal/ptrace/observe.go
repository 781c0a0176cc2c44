package ptrace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/proc"
)

// pauseSlack is how far the pauses may exceed their share before the
// breakpoints are taken out: a short observation would else get no stop at all.
const pauseSlack = 2 * time.Millisecond

// Observe traces a process until Options say that it is enough, the context is
// cancelled, or the process ends. The result is valid together with an error.
func Observe(ctx context.Context, pid int, o Options, h Handler) (Result, error) {
	res := Result{PID: pid, Hits: make([]uint64, len(o.Breakpoints))}
	p, err := proc.Open(pid)
	if err != nil {
		return res, err
	}
	err = onThread(func() error {
		s := newSession(pid)
		if err := s.attach(); err != nil {
			return errors.Join(err, s.release())
		}
		// From here on an exec is reported.
		if o.Program != nil && !bytes.Equal(o.Program, p.Program()) {
			res.Ended = EndExec
			return s.release()
		}
		return newObserver(s, o, h, &res).run(ctx)
	})
	return res, notStopping(pid, err)
}

// observer runs the loop over one session.
type observer struct {
	s     *session
	o     Options
	h     Handler
	res   *Result
	w     *waiter
	stop  Stop // reused for every stop
	seq   uint64
	stops int
	tids  []int // scratch of others
	began time.Time
	// charged is what counts towards MaxPause: pauses since arming.
	charged time.Duration
	off     bool // MaxPause has disarmed the breakpoints
	done    bool
}

func newObserver(s *session, o Options, h Handler, res *Result) *observer {
	res.Hits = make([]uint64, len(o.Breakpoints))
	return &observer{s: s, o: o, h: h, res: res}
}

// run arms, loops, and cleans up whatever happens.
func (ob *observer) run(ctx context.Context) (err error) {
	s := ob.s
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
		}
		ob.res.Duration = time.Since(ob.began)
		err = errors.Join(err, s.release())
		ob.finish()
	}()
	if ob.w, err = newWaiter(); err != nil {
		return err
	}
	ob.began = time.Now()
	if len(ob.o.Breakpoints) > 0 {
		if err := ob.arm(); err != nil {
			return err
		}
	}
	ob.began = time.Now()
	ob.w.start(ctx, ob.o.For, ob.o.SampleEvery)
	defer ob.w.close()
	s.held = false
	if err := s.resumeAll(); err != nil {
		return err
	}
	return ob.loop()
}

func (ob *observer) arm() error {
	why, err := ob.s.choose(&ob.o)
	ob.res.Why = why
	if err == nil {
		ob.res.Engine = why[len(why)-1].Engine
	} else if ob.s.ended != nil {
		return nil // it died in our hands; the result says so
	}
	return err
}

// finish fills in what the result says about the whole.
func (ob *observer) finish() {
	ob.res.Threads = ob.s.seized
	for _, d := range ob.s.stood {
		ob.stood(d)
	}
	if ob.s.ended != nil && (ob.res.Ended == EndError || *ob.s.ended == EndExited) {
		ob.res.Ended = *ob.s.ended
	}
	ob.res.Exit, ob.res.Foreign = ob.s.exit, ob.s.foreign
}

func (ob *observer) end(r EndReason) { ob.res.Ended, ob.done = r, true }

func (ob *observer) loop() error {
	var ev event
	last, same := 0, 0
	for !ob.done && ob.s.ended == nil {
		if same >= fairAfter {
			same = 0
			if err := ob.others(last); err != nil {
				return err
			}
			continue
		}
		ok, err := ob.w.next(&ev)
		switch {
		case err != nil && errors.Is(err, unix.ECHILD):
			// Nothing left to trace, and nobody told how it ended.
			end := EndExited
			ob.s.ended = &end
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case !ok:
			if err := ob.woken(); err != nil {
				return err
			}
		default:
			if same++; ev.tid != last {
				last, same = ev.tid, 0
			}
			if err := ob.handle(&ev); err != nil && !gone(err) {
				return err
			}
		}
	}
	return nil
}

// fairAfter is how many events of one thread in a row make the others be asked.
// The kernel reports the first stopped thread of its list; a hot one that
// always stands again at once would keep the others standing for good.
const fairAfter = 16

// others handles what waits of all threads but one.
func (ob *observer) others(but int) error {
	tids := ob.tids[:0]
	for tid := range ob.s.threads {
		if tid != but {
			tids = append(tids, tid)
		}
	}
	ob.tids = tids
	var ev event
	for _, tid := range tids {
		if ob.done || ob.s.ended != nil {
			return nil
		}
		if peek(tid, &ev) {
			if err := ob.handle(&ev); err != nil && !gone(err) {
				return err
			}
		}
	}
	return nil
}

// woken acts on what the waiter's helpers asked for.
func (ob *observer) woken() error {
	bits := ob.w.pending.Swap(0)
	switch {
	case bits&wakeCancel != 0:
		ob.end(EndCancelled)
		return nil
	case bits&wakeDeadline != 0:
		ob.end(EndDuration)
		return nil
	}
	if bits&wakeRearm != 0 && ob.off {
		ob.off = false
		if err := ob.s.eng.unpause(); err != nil {
			return fmt.Errorf("put the breakpoints back: %w", err)
		}
	}
	if bits&wakeSample != 0 {
		for _, t := range ob.s.threads {
			if !t.child && interrupt(t.tid) == nil {
				t.sample = true
			}
		}
	}
	return nil
}

// handle deals with one event and lets the thread run on.
func (ob *observer) handle(ev *event) error {
	s := ob.s
	t := s.threads[ev.tid]
	switch {
	case t == nil:
		return ob.stranger(ev)
	case ev.ended():
		s.reap(ev)
		return nil
	case ev.trace() == unix.PTRACE_EVENT_STOP:
		t.group = ev.sig() != int(unix.SIGTRAP)
		if t.born != 0 {
			return s.arrived(t)
		}
		if t.sample {
			t.sample = false
			return ob.sample(t)
		}
		return s.resume(t, 0)
	case ev.trace() != 0:
		return s.born(t, ev)
	case ev.syscallStop():
		return ob.call(t)
	case ev.sig() == int(unix.SIGTRAP) && s.eng != nil:
		return ob.trap(t)
	}
	return s.deliver(t, ev.sig())
}

// stranger is the first stop of a thread whose parent has not reported it yet,
// or a child of this process, which this thread has started or inherited: it
// ended, or stands for another thread, which traces it.
func (ob *observer) stranger(ev *event) error {
	if !ev.ended() && statusField(ev.tid, "TracerPid") == strconv.Itoa(ob.w.tid) {
		ob.s.early[ev.tid] = true
		// Hide it from the next wait; newTask finds it stopped.
		return ob.s.adopt(ev.tid)
	}
	time.Sleep(time.Millisecond)
	return ob.others(0)
}

// trap is a SIGTRAP: the hot path.
func (ob *observer) trap(t *tracee) error {
	s := ob.s
	from := time.Now()
	var regs userRegs
	bp, err := s.eng.hit(t, &regs)
	switch {
	case err != nil:
		return err
	case bp == notOurs:
		return s.deliver(t, int(unix.SIGTRAP))
	case bp == stale:
		ob.res.Unseen++
		return s.resume(t, 0)
	}
	if t.child {
		ob.res.Unseen++
	} else {
		ob.hit(t, bp, &regs, from)
	}
	if err := s.eng.pass(t, bp, &regs); err != nil {
		return err
	}
	if err := s.resume(t, 0); err != nil {
		return err
	}
	return ob.paused(time.Since(from))
}

// hit shows a breakpoint's stop.
func (ob *observer) hit(t *tracee, bp int, regs *userRegs, from time.Time) {
	missed := ob.show(t, KindBreakpoint, bp, regs, from) == Missed
	ob.res.Hits[bp]++
	if missed {
		return
	}
	if ob.stops++; ob.stops == ob.o.MaxStops && !ob.done {
		ob.end(EndStops)
	}
}

// call is a stop on the way into a system call or out of it.
func (ob *observer) call(t *tracee) error {
	from := time.Now()
	if e, ok := ob.s.eng.(*bySyscall); ok && ob.s.perCall {
		var regs userRegs
		bp, err := e.entered(t, &regs)
		if err != nil {
			return err
		}
		if bp != notOurs {
			ob.hit(t, bp, &regs, from)
		}
	}
	if err := ob.s.resume(t, 0); err != nil {
		return err
	}
	return ob.paused(time.Since(from))
}

func (ob *observer) sample(t *tracee) error {
	from := time.Now()
	var regs userRegs
	if err := getRegs(t.tid, &regs); err != nil {
		return err
	}
	if ob.s.eng != nil {
		ob.s.eng.original(&regs)
	}
	ob.show(t, KindSample, -1, &regs, from)
	ob.res.Samples++
	if err := ob.s.resume(t, 0); err != nil {
		return err
	}
	return ob.paused(time.Since(from))
}

// show hands a stop to the handler. When that panics, the thread still gets
// past its breakpoint; release reports the panic.
func (ob *observer) show(t *tracee, kind StopKind, bp int, regs *userRegs, at time.Time) Verdict {
	ob.stop.TID, ob.stop.Kind, ob.stop.Breakpoint = t.tid, kind, bp
	ob.stop.Seq, ob.stop.At = ob.seq, at.Sub(ob.began)
	convert(regs, &ob.stop.Regs)
	ob.seq++
	v := ob.ask()
	if v == Finish {
		ob.end(EndFinished)
	}
	return v
}

func (ob *observer) ask() (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			ob.s.fault = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
			ob.res.Ended, ob.done, v = EndError, true, Continue
		}
	}()
	return ob.h.OnStop(&ob.stop)
}

// stood accounts for a time in which the worker did not run.
func (ob *observer) stood(d time.Duration) {
	ob.res.PausedTotal += d
	ob.res.PausedMax = max(ob.res.PausedMax, d)
}

// paused accounts a stop, and takes the breakpoints out when the worker has
// stood still for more than its share.
func (ob *observer) paused(d time.Duration) error {
	ob.stood(d)
	ob.charged += d
	if ob.o.MaxPause <= 0 || ob.off || ob.s.eng == nil || ob.done {
		return nil
	}
	elapsed := time.Since(ob.began)
	if ob.charged <= time.Duration(ob.o.MaxPause*float64(elapsed))+pauseSlack {
		return nil
	}
	ob.off = true
	ob.res.Disarmed++
	// Rest until the pauses are within their share again.
	ob.w.after(time.Duration(float64(ob.charged)/ob.o.MaxPause)-elapsed, wakeRearm)
	return ob.s.eng.pause()
}
