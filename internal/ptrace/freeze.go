package ptrace

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
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
// process stood still. Threads that don't stop (state D) are listed with an
// Err; copy's error is returned.
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
		from := time.Now()
		err := s.freeze(copy)
		err = errors.Join(err, s.close())
		paused = time.Since(from)
		return err
	})
	return paused, err
}

func (s *session) freeze(copy func([]ThreadStop) error) (err error) {
	_ = s.stopAll() // what is late is told per thread
	if s.ended != nil || len(s.threads) == 0 {
		return &proc.Error{PID: s.pid, What: "stop process", Err: proc.ErrNoProcess, Advice: "it ended meanwhile"}
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
	return copy(stops)
}
