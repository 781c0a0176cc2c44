package ptrace

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// stopTimeout is how long a thread may take to stand still. A thread in
	// uninterruptible sleep (state D) never does.
	stopTimeout = 500 * time.Millisecond
	// starvedTimeout is how long one may take that would, had it a processor: on a
	// host with many times as much work as processors, or in a group with a limit,
	// its turn takes long to come. It loses nothing by being waited for.
	starvedTimeout = 10 * time.Second
	// ownTurn is the processor time in which a thread does what it was asked to.
	ownTurn = 50 * time.Millisecond
)

// patience is for how long a thread is waited for.
type patience struct {
	tid    int
	began  time.Time
	enough time.Duration
	had    time.Duration // the processor time that it had before, once known
	known  bool
}

func newPatience(tid int, enough time.Duration) *patience {
	return &patience{tid: tid, began: time.Now(), enough: enough}
}

// over reports whether the thread has had its time: enough, or, if it may, that of one
// that hardly gets a processor.
func (p *patience) over(may bool) bool {
	d := time.Since(p.began)
	if d <= p.enough {
		return false
	}
	return !may || d > starvedTimeout || !p.starved()
}

// starved reports whether the thread could run and has not had a turn since it was
// first asked about, which is once its time is over.
func (p *patience) starved() bool {
	if !strings.HasPrefix(statusField(p.tid, "State"), "R") { // proc_pid_status(5)
		return false
	}
	ran, ok := ranFor(p.tid)
	if !p.known {
		p.had, p.known = ran, ok
	}
	return ok && ran-p.had < ownTurn
}

// ranFor is the processor time that a thread has had: the first number, in nanoseconds
// (Documentation/scheduler/sched-stats.rst).
func ranFor(tid int) (time.Duration, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", tid))
	first, _, _ := strings.Cut(string(b), " ")
	ns, err2 := strconv.ParseInt(first, 10, 64)
	return time.Duration(ns), err == nil && err2 == nil
}

// patiently waits for an event of a single thread.
func patiently(tid int, ev *event) error {
	for p := newPatience(tid, stopTimeout); ; {
		err := one(tid, ev, stopTimeout)
		if !errors.Is(err, ErrNotStopping) || p.over(true) {
			return err
		}
	}
}
