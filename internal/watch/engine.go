// Package watch decides which workers misbehave, and which of them may be
// observed next.
//
// Contract: it is pure. Samples and the time are handed in, decisions come out;
// what is expensive to find out (a worker's request) is asked for only when it
// decides something. A worker is a pid and a start time, so a pid that is used
// again is another worker. Memory is bounded by the workers of the last tick.
//
// Hazard: the wall clock jumps. Ages that it gives are bounded by what was seen
// on the monotonic clock.
//
// Non-goal: it reads nothing and observes nobody; package daemon does.
package watch

import (
	"time"
)

// ID identifies a process: pids are used again.
type ID struct {
	PID   int
	Start uint64 // clock ticks after boot
}

// Sample is what one tick saw of a worker.
type Sample struct {
	ID
	// Busy is the time that it has used a processor or has waited for one, so
	// far. On a host that is short of processors a loop gets less than one.
	Busy time.Duration
	// Alive is for how long the process has lived; 0 when unknown.
	Alive time.Duration
}

// Request is what is known of a worker's web request.
type Request struct {
	State State
	Start time.Time // on the wall clock; zero when nobody has noted it
	// Same is equal in two looks only when both saw the same request. It may
	// differ although the request is the same.
	Same string
}

// State says whether a worker has a request.
type State int

// The states.
const (
	Unknown    State = iota // it could not be read
	NoRequest               // the worker waits for one
	InProgress              // a web request
	NotWeb                  // a command-line script
)

// Look finds a worker's request out.
type Look func(ID) Request

// Kind says how a worker misbehaves.
type Kind string

// The kinds.
const (
	CPU Kind = "cpu"
	Age Kind = "age"
)

// Kinds are all of them.
func Kinds() []Kind { return []Kind{CPU, Age} }

// Trigger is one worker that misbehaves.
type Trigger struct {
	ID
	Kind   Kind
	At     time.Time     // of the tick that saw it first
	Share  float64       // CPU: of one processor, over Period
	Period time.Duration // CPU: for how long it has been busy
	Age    time.Duration // Age: of its request
}

// Policy says what is too much, and how often to look closer.
type Policy struct {
	CPU    float64       // share of one processor; 0: any is fine
	During time.Duration // for how long, without a break
	Grain  time.Duration // the step in which Sample.Busy counts
	Age    time.Duration // of a web request; 0: any is fine

	Cooldown   time.Duration // before a worker is observed again
	MaxPerHour int           // observations; 0: no limit
	MaxPause   float64       // share of the time that workers may stand still for observations, all together; 0: no limit
}

// Stats count what came of it since the start.
type Stats struct {
	Workers   int          // at the last tick
	Due       int          // that misbehave now and wait to be observed
	Triggers  map[Kind]int // workers that began to misbehave
	Started   int          // observations
	Recovered int          // triggers whose worker behaved again before it could be observed
	Gone      int          // triggers whose worker had ended before it could be observed
	Delayed   map[Delay]int
}

// Delay says why a trigger had to wait; each counts once per trigger.
type Delay string

// The delays.
const (
	Occupied    Delay = "occupied"     // another worker is being observed
	HourlyCap   Delay = "hourly_cap"   // MaxPerHour
	PauseBudget Delay = "pause_budget" // MaxPause
)

// Delays are all of them.
func Delays() []Delay { return []Delay{Occupied, HourlyCap, PauseBudget} }

// Engine applies a Policy. It is not safe for concurrent use.
type Engine struct {
	p       Policy
	workers map[ID]*worker
	tick    uint64
	stats   Stats

	running  ID // of the observation in progress
	busy     bool
	started  time.Time
	recent   []time.Time // starts within the last hour, oldest first
	notUntil time.Time   // MaxPause
}

// worker is what is remembered of one.
type worker struct {
	tick uint64
	at   time.Time     // of the last sample
	used time.Duration // Sample.Busy then

	since time.Time     // it has been above Policy.CPU; zero when it is not
	base  time.Duration // Sample.Busy then
	idle  bool          // it had no request when a period was over

	same      string    // Request.Same
	sameSince time.Time // first seen
	looked    time.Time // when its request was last read
	before    time.Time // last seen without this request; zero when never
	next      time.Time // until then its request can't be too old

	due   *Trigger
	told  map[Delay]bool
	rests time.Time // until then it is not observed again
}

// New makes an Engine.
func New(p Policy) *Engine {
	return &Engine{p: p, workers: make(map[ID]*worker), stats: Stats{Triggers: make(map[Kind]int), Delayed: make(map[Delay]int)}}
}

// Tick takes the samples of all workers and returns those that have just begun
// to misbehave.
func (e *Engine) Tick(now time.Time, samples []Sample, look Look) []Trigger {
	e.tick++
	var began []Trigger
	for i := range samples {
		s := &samples[i]
		w := e.workers[s.ID]
		if w == nil {
			w = &worker{at: now, used: s.Busy}
			e.workers[s.ID] = w
		}
		w.tick = e.tick
		t := e.judge(now, w, s, look)
		w.at, w.used = now, s.Busy
		if e.note(w, t) {
			began = append(began, *t)
		}
	}
	e.forget()
	e.stats.Workers = len(e.workers)
	return began
}

// note keeps a worker's trigger up to date, and reports whether it is a new one.
func (e *Engine) note(w *worker, t *Trigger) bool {
	switch {
	case t == nil && w.due != nil:
		e.stats.Recovered++
		w.due, w.told = nil, nil
	case t != nil && w.due == nil:
		w.due = t
		e.stats.Triggers[t.Kind]++
		return true
	case t != nil:
		t.At = w.due.At
		w.due = t
	}
	return false
}

// forget drops the workers that the last tick has not seen.
func (e *Engine) forget() {
	for id, w := range e.workers {
		if w.tick == e.tick {
			continue
		}
		if w.due != nil {
			e.stats.Gone++
		}
		delete(e.workers, id)
	}
}

// judge returns a worker's trigger, nil when it behaves or is not to be
// observed now.
func (e *Engine) judge(now time.Time, w *worker, s *Sample, look Look) *Trigger {
	e.busyness(now, w, s)
	if now.Before(w.rests) || e.busy && s.ID == e.running {
		return nil
	}
	var seen *Request
	once := func() *Request {
		if seen == nil {
			q := look(s.ID)
			seen = &q
			w.saw(now, seen)
		}
		return seen
	}
	if t := e.tooBusy(now, w, s, once); t != nil {
		return t
	}
	return e.tooOld(now, w, s, once)
}

// busyness notes since when a worker has been above the share, at every sample.
func (e *Engine) busyness(now time.Time, w *worker, s *Sample) {
	passed := now.Sub(w.at)
	if e.p.CPU <= 0 || passed <= 0 {
		return
	}
	if float64(s.Busy-w.used+e.p.Grain) < e.p.CPU*float64(passed) {
		w.since, w.idle = time.Time{}, false
		return
	}
	if w.since.IsZero() {
		w.since, w.base = w.at, w.used
	}
}

// tooBusy decides at the end of a busy period. A worker that has served several
// requests in that time has much to do; it does not hang.
func (e *Engine) tooBusy(now time.Time, w *worker, s *Sample, look func() *Request) *Trigger {
	if e.p.CPU <= 0 || w.since.IsZero() || now.Sub(w.since) < e.p.During {
		return nil
	}
	switch q := look(); q.State {
	case InProgress:
		if age, ok := w.age(now, q, s.Alive); ok && age < e.p.During {
			w.restart(now.Add(-age), w.used+e.p.Grain)
			return nil
		}
	case NoRequest:
		// Between two requests; or, seen twice, busy without one.
		if !w.idle {
			w.restart(now, s.Busy)
			w.idle = true
			return nil
		}
	}
	period := now.Sub(w.since)
	return &Trigger{ID: s.ID, Kind: CPU, At: now, Period: period, Share: float64(s.Busy-w.base) / float64(period)}
}

// restart lets a busy period begin at a later moment.
func (w *worker) restart(at time.Time, base time.Duration) {
	if at.After(w.since) {
		w.since, w.base = at, base
	}
}

// tooOld asks for the request of a worker that has lived long enough to have
// an old one.
func (e *Engine) tooOld(now time.Time, w *worker, s *Sample, look func() *Request) *Trigger {
	if e.p.Age <= 0 || s.Alive > 0 && s.Alive < e.p.Age {
		return nil
	}
	if w.due == nil && now.Before(w.next) {
		return nil
	}
	q := look()
	// One that waits for a request now has no old one before long. Where PHP
	// notes no start, what counts is when a request was first seen: not too late.
	w.next = now.Add(e.p.Age / looksPerAge)
	if q.State == Unknown && w.due != nil && w.due.Kind == Age {
		return w.due // a read that failed says nothing
	}
	if q.State != InProgress {
		return nil
	}
	age, ok := w.age(now, q, s.Alive)
	if !ok {
		age = now.Sub(w.sameSince) // at least
	}
	if rest := e.p.Age - age; rest > 0 {
		if at := now.Add(rest); at.Before(w.next) {
			w.next = at
		}
		return nil
	}
	return &Trigger{ID: s.ID, Kind: Age, At: now, Age: age}
}

// looksPerAge is how often a worker's request is read in the time that one may
// last.
const looksPerAge = 4

// saw remembers since when a worker has had its request.
func (w *worker) saw(now time.Time, q *Request) {
	switch {
	case q.State == Unknown:
		return
	case q.State != InProgress:
		w.same, w.sameSince, w.before = "", time.Time{}, now
	case w.sameSince.IsZero():
		w.same, w.sameSince = q.Same, now
	case q.Same != w.same:
		w.same, w.sameSince, w.before = q.Same, now, w.looked
	}
	w.looked = now
}

// age is that of a request whose start is known. The wall clock may have
// been set since: a request is not older than its worker, and began after the
// worker was last seen without it.
func (w *worker) age(now time.Time, q *Request, alive time.Duration) (time.Duration, bool) {
	if q.Start.IsZero() {
		return 0, false
	}
	age := now.Round(0).Sub(q.Start)
	if alive > 0 {
		age = min(age, alive)
	}
	if !w.before.IsZero() {
		age = min(age, now.Sub(w.before))
	}
	return max(age, now.Sub(w.sameSince)), true
}
