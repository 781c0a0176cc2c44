package observe

import (
	"errors"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/target"
)

// vitals are what only a living process tells. A worker may end while it is
// observed, and what it did until then is then all there is.
type vitals struct {
	cpu, queued time.Duration
	ran         time.Duration // since facts began to count, stops included
	state       string        // "" when it is not the worker's own
	threads     int
	age         time.Duration
	known       bool
}

// sampled notes the vitals behind a sample. The worker runs.
func (f *facts) sampled(l *target.Live) {
	v := vitals{ran: time.Since(f.began)}
	var err error
	if v.cpu, v.queued, err = l.CPUTime(); err != nil {
		return
	}
	if v.state, err = ownState(l); err != nil || v.state == "Z" || v.state == "X" {
		return
	}
	v.threads = threads(l)
	v.age, _ = l.Age()
	v.known = true
	f.last = v
}

// ownState is the state of the process, "" while a tracer holds it: strace, for one,
// does at every system call, for a moment that says nothing of the worker.
func ownState(l *target.Live) (string, error) {
	st, err := l.State()
	if st == tracingStop {
		st = ""
	}
	return st, err
}

const (
	tracingStop = "t" // proc_pid_stat(5): stopped by a tracer
	// heldFor is how long a tracer keeps a worker standing before it counts as held.
	// strace that waits for a processor itself needs some of it.
	heldFor = 250 * time.Millisecond
	// heldLooks is how many times the worker is looked at meanwhile.
	heldLooks = 125
)

// settled is the state of the process. One that was stopped before takes a
// moment to be so again when it is let go. A tracing stop only counts when it lasts:
// a worker that has slept, run or stopped again since has switched to another
// stop, and is as good as running.
func (f *facts) settled(l *target.Live) (string, error) {
	st, err := l.State()
	for range factTries {
		if err != nil || f.state != "T" || st == "T" || st == tracingStop {
			break
		}
		time.Sleep(time.Millisecond)
		st, err = l.State()
	}
	if err != nil || st != tracingStop {
		return st, err
	}
	count, err := l.Switches(l.PID)
	if err != nil {
		return "", err
	}
	defer func() { _ = count.Close() }()
	first, ok := count.Read()
	if !ok {
		return "", nil
	}
	for range heldLooks {
		time.Sleep(heldFor / heldLooks)
		if st, err = l.State(); err != nil || st != tracingStop {
			return st, err
		}
		var n uint64
		if n, ok = count.Read(); ok && n != first {
			return "R", nil
		}
	}
	if !ok {
		return "", nil
	}
	return st, nil
}

// now are the vitals at the end, the last ones that are known when it is over.
func (f *facts) now(l *target.Live, ran time.Duration) (vitals, error) {
	v := vitals{ran: ran, threads: threads(l)}
	var err error
	if v.cpu, v.queued, err = l.CPUTime(); err == nil {
		if v.state, err = f.settled(l); err == nil && v.state != "Z" && v.state != "X" {
			v.age, err = l.Age()
			v.known = err == nil
			return v, err
		}
	}
	if f.last.known {
		return f.last, nil
	}
	return v, errors.Join(err, proc.ErrNoProcess)
}
