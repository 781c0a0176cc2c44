package ptrace

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// ThreadStop is one thread of a frozen process. Err says why there are no
// registers; such a thread may still be running.
type ThreadStop struct {
	TID     int
	Regs    remote.Regs
	Stopped bool // by a signal (SIGSTOP and the like), before and after
	Err     error
}

// Freeze stops all threads at once, calls copy on them in the order of their
// ids, the main thread first, and lets them go. It returns how long the
// process stood still: from when its thread did, to when it was let go. With
// several threads, of which some wait for others to stop, it counts from when
// they were asked to. Threads that don't stop (state D) are listed with an Err;
// copy's error is returned.
func Freeze(ctx context.Context, pid int, copy func([]ThreadStop) error) (time.Duration, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if _, err := proc.Open(pid); err != nil {
		return 0, err
	}
	var paused time.Duration
	err := onThread(func() error {
		s := newSession(pid)
		if err := s.attach(); err != nil {
			return errors.Join(err, s.release())
		}
		from, err := s.freeze(copy)
		err = errors.Join(err, s.close())
		paused = time.Since(from)
		return err
	})
	return paused, err
}

func (s *session) freeze(copy func([]ThreadStop) error) (from time.Time, err error) {
	late := newRunDelay()
	from = time.Now()
	_ = s.stopAll() // what is late is told per thread
	if len(s.threads) == 1 {
		// It may have waited for a processor to stop on, as it would have without us.
		// What counts is for how long this thread then did, to see that it has.
		from = maxTime(from, time.Now().Add(-late.since()))
	}
	late.close()
	if s.ended != nil || len(s.threads) == 0 {
		return from, &proc.Error{PID: s.pid, What: "stop process", Err: proc.ErrNoProcess, Advice: "it ended meanwhile"}
	}
	stops := make([]ThreadStop, 0, len(s.threads))
	for _, t := range s.threads {
		if t.child {
			continue
		}
		ts := ThreadStop{TID: t.tid, Stopped: t.group, Err: ErrNotStopping}
		if t.stopped {
			var regs userRegs
			if ts.Err = getRegs(t.tid, &regs); ts.Err == nil {
				convert(&regs, &ts.Regs)
			}
		}
		stops = append(stops, ts)
	}
	slices.SortFunc(stops, func(a, b ThreadStop) int {
		if (a.TID == s.pid) != (b.TID == s.pid) {
			if a.TID == s.pid {
				return -1
			}
			return 1
		}
		return a.TID - b.TID
	})
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
		}
	}()
	return from, copy(stops)
}

// runDelay tells for how long the calling OS thread has waited for a processor.
type runDelay struct {
	f     *os.File // nil where the kernel doesn't say
	begun time.Duration
}

func newRunDelay() *runDelay {
	d := &runDelay{}
	if f, err := os.Open("/proc/thread-self/schedstat"); err == nil {
		d.f = f
		d.begun = d.read()
	}
	return d
}

// read is the second number: nanoseconds in the run queue
// (Documentation/scheduler/sched-stats.rst).
func (d *runDelay) read() time.Duration {
	var b [128]byte
	n, _ := d.f.ReadAt(b[:], 0) // at its end there is an error, too
	f := strings.Fields(string(b[:n]))
	if len(f) < 2 {
		return 0
	}
	ns, _ := strconv.ParseInt(f[1], 10, 64)
	return time.Duration(ns)
}

// since is how long it has waited since newRunDelay; for ever when that is unknown.
func (d *runDelay) since() time.Duration {
	if d.f == nil {
		return math.MaxInt64
	}
	return d.read() - d.begun
}

func (d *runDelay) close() {
	if d.f != nil {
		_ = d.f.Close()
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
