package watch

import (
	"maps"
	"time"
)

// Outcome is what came of an observation.
type Outcome struct {
	Paused time.Duration // the worker stood still, in all
	// Gone: the worker had ended before anything was seen. That costs no budget.
	Gone bool
}

// Next takes the worker that has waited longest to be observed, if the budgets
// allow one now. Report its end with Done.
func (e *Engine) Next(now time.Time) (Trigger, bool) {
	e.stats.Due = 0
	var next *worker
	for _, w := range e.workers {
		if w.due == nil {
			continue
		}
		e.stats.Due++
		if next == nil || w.due.before(next.due) {
			next = w
		}
	}
	if next == nil {
		return Trigger{}, false
	}
	if d := e.delay(now); d != "" {
		for _, w := range e.workers {
			if w.due != nil && !w.told[d] {
				if w.told == nil {
					w.told = make(map[Delay]bool)
				}
				w.told[d] = true
				e.stats.Delayed[d]++
			}
		}
		return Trigger{}, false
	}
	t := *next.due
	next.due, next.told = nil, nil
	next.rests = now.Add(e.p.Cooldown)
	e.busy, e.running, e.started = true, t.ID, now
	e.recent = append(e.recent, now)
	e.stats.Started++
	e.stats.Due--
	return t, true
}

// before orders triggers: the older first, and always in the same way.
func (t *Trigger) before(u *Trigger) bool {
	if !t.At.Equal(u.At) {
		return t.At.Before(u.At)
	}
	if t.PID != u.PID {
		return t.PID < u.PID
	}
	return t.Start < u.Start
}

// delay says which budget is spent, "" when none is.
func (e *Engine) delay(now time.Time) Delay {
	for len(e.recent) > 0 && now.Sub(e.recent[0]) >= time.Hour {
		e.recent = e.recent[1:]
	}
	switch {
	case e.busy:
		return Occupied
	case e.p.MaxPerHour > 0 && len(e.recent) >= e.p.MaxPerHour:
		return HourlyCap
	case now.Before(e.notUntil):
		return PauseBudget
	}
	return ""
}

// Done ends the observation that Next has begun.
func (e *Engine) Done(now time.Time, o Outcome) {
	if !e.busy {
		return
	}
	e.busy = false
	if o.Gone {
		if n := len(e.recent); n > 0 {
			e.recent = e.recent[:n-1]
		}
		return
	}
	// The cooldown counts from the end: the observation is part of it no longer.
	if w := e.workers[e.running]; w != nil {
		w.rests = now.Add(e.p.Cooldown)
	}
	if e.p.MaxPause > 0 {
		// The pauses, stretched to where they are no more than the share.
		e.notUntil = e.started.Add(time.Duration(float64(o.Paused) / e.p.MaxPause))
	}
}

// Stats are the counts so far.
func (e *Engine) Stats() Stats {
	s := e.stats
	s.Triggers, s.Delayed = maps.Clone(s.Triggers), maps.Clone(s.Delayed)
	return s
}
