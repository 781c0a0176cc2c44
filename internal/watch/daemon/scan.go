package daemon

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/watch"
)

// Worker is a process to watch.
type Worker struct {
	watch.ID
	Pool string // of php-fpm; "" when it has none
}

// busyShare is the share of a processor from which on it is worth a second
// read to know how long a worker had to wait for one.
const busyShare = 0.05

// scanner turns the workers of a tick into samples: one small file of /proc for
// each, a second one for those that are at work. Which processes are workers is
// asked more seldom, for that takes a look at everything on the host.
type scanner struct {
	find  func(context.Context) ([]Worker, error)
	every time.Duration // between two such questions
	asked time.Time
	found []Worker
	peek  *observe.Peeker
	known map[watch.ID]*seen
	tick  uint64
	at    time.Time
}

// findEvery is how often workers are looked for, when nothing that is waited
// for comes sooner.
const findEvery = 5 * time.Second

// findingEvery is how often to look for workers: a new one must not have
// misbehaved for long before it is known.
func findingEvery(p watch.Policy) time.Duration {
	d := findEvery
	if p.CPU > 0 {
		d = min(d, p.During/4)
	}
	if p.Age > 0 {
		d = min(d, p.Age/4)
	}
	return d
}

// seen is what is remembered of a worker between two ticks.
type seen struct {
	tick    uint64
	pool    string
	cpu     time.Duration
	queued  time.Duration
	measure bool // queued was read at the last tick
	busy    time.Duration
	lent    time.Duration // of busy, for a wait that was still in progress

	// Of its request, where nobody has noted its start: see unmarked.
	mark uint64
	on   time.Duration
	nth  uint64
}

func newScanner(find func(context.Context) ([]Worker, error), every time.Duration) *scanner {
	return &scanner{find: find, every: every, peek: observe.NewPeeker(), known: make(map[watch.ID]*seen)}
}

// scan samples all workers. A worker that ends meanwhile is left out.
func (s *scanner) scan(ctx context.Context, now time.Time) ([]watch.Sample, error) {
	if s.asked.IsZero() || now.Sub(s.asked) >= s.every {
		found, err := s.find(ctx)
		if err != nil {
			return nil, err
		}
		s.asked, s.found = now, found
	}
	boot, err := proc.SinceBoot()
	if err != nil {
		return nil, err
	}
	passed := now.Sub(s.at)
	s.at = now
	s.tick++
	out := make([]watch.Sample, 0, len(s.found))
	alive := s.found[:0]
	for _, w := range s.found {
		t, err := proc.ReadTimes(w.PID)
		if err != nil || t.Start != w.Start || t.State == 'Z' || t.State == 'X' {
			continue // it has ended
		}
		alive = append(alive, w)
		k := s.known[w.ID]
		if k == nil {
			k = &seen{cpu: t.CPU}
			s.known[w.ID] = k
		}
		k.tick, k.pool = s.tick, w.Pool
		k.measured(w.PID, t, passed)
		out = append(out, watch.Sample{ID: w.ID, Busy: k.busy, Alive: max(boot-proc.StartedAt(w.Start), 0)})
	}
	s.found = alive
	for id, k := range s.known {
		if k.tick != s.tick {
			delete(s.known, id)
		}
	}
	s.peek.Keep(func(pid int, start uint64) bool { return s.known[watch.ID{PID: pid, Start: start}] != nil })
	return out, nil
}

// measured adds what a worker has used since the last tick.
func (k *seen) measured(pid int, t proc.Times, passed time.Duration) {
	used := max(t.CPU-k.cpu, 0) // threads that ended took their time with them
	k.cpu = t.CPU
	// On a host that is very short of them, it waits and uses next to nothing.
	atWork := t.State == 'R' || float64(used) >= busyShare*float64(passed)
	waited := time.Duration(0)
	if atWork || k.measure {
		// Of the threads that wait only the main one counts: PHP runs there,
		// unless it is thread-safe.
		sch, err := proc.ReadScheduled(pid)
		if err == nil && k.measure {
			waited = max(sch.Queued-k.queued, 0)
		}
		k.queued, k.measure = sch.Queued, atWork && err == nil
	}
	k.spend(used, waited, passed, t.State == 'R' && k.measure)
}

// spend adds one tick's time. The kernel counts a wait when it is over, so one
// that is still in progress (ready) is lent, and taken back at the next tick,
// which has it counted if there was one.
func (k *seen) spend(used, waited, passed time.Duration, ready bool) {
	got := used + waited - k.lent
	k.lent = 0
	if ready && got < passed {
		k.lent = passed - got
		got = passed
	}
	// A wait that began before the first measurement is none of this tick's.
	k.busy += min(got, max(used, passed))
}

// look finds a worker's request out.
func (s *scanner) look(id watch.ID) watch.Request {
	p, err := s.peek.Peek(id.PID, id.Start)
	switch {
	case err != nil:
		return watch.Request{State: watch.Unknown}
	case p.Idle:
		return watch.Request{State: watch.NoRequest}
	case !p.Web:
		return watch.Request{State: watch.NotWeb}
	}
	q := watch.Request{State: watch.InProgress, Start: p.Start, Same: p.Request}
	if q.Same != "" {
		return q
	}
	sch, err := proc.ReadScheduled(id.PID)
	k := s.known[id]
	if err != nil || k == nil {
		return watch.Request{State: watch.Unknown}
	}
	q.Same = k.unmarked(p.Mark, sch.On)
	return q
}

// wakings is the processor time that a request which hangs may use between two
// looks: what wakes a waiter for nothing costs it some 10 µs, such as phpwhy's
// own look at another one that waits for the same lock. For PHP to end a request
// and begin another takes more than 150 µs.
const wakings = 50 * time.Microsecond

// unmarked names the request of a worker where nobody has noted its start: it is
// the one of the last look if all its parts are where they were, and the worker
// has done nothing since. on is the time it has been on a processor.
func (k *seen) unmarked(mark uint64, on time.Duration) string {
	if k.nth == 0 || mark != k.mark || on-k.on > wakings {
		k.nth++
	}
	k.mark, k.on = mark, on
	return "request " + strconv.FormatUint(k.nth, 10)
}

// pool is the pool of a worker of the last tick.
func (s *scanner) pool(id watch.ID) string {
	if k := s.known[id]; k != nil {
		return k.pool
	}
	return ""
}

// ended reports whether an error says that the worker has ended.
func ended(err error) bool {
	return errors.Is(err, proc.ErrNoProcess) || errors.Is(err, proc.ErrZombie)
}
