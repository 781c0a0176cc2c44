package triage

import (
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
)

// capture is the one that began on a host at that time; again says that it is in
// another file, too. Captures without a clock can't be told to be the same.
func (b *Builder) capture(host int, started time.Time, live bool) (c *captureSeen, again bool) {
	for _, c := range b.captures {
		if c.host != host || !c.started.Equal(started) || started.IsZero() && !(live && c.live) {
			continue
		}
		if live && c.live {
			return c, false
		}
		b.lost.repeated++
		return c, true
	}
	c = &captureSeen{host: host, started: started, live: live}
	b.captures = append(b.captures, c)
	return c, false
}

// zero is when the first capture with a clock began: one worker may be in several.
func (b *Builder) zero(now time.Time) time.Time {
	for _, c := range b.captures {
		if !c.started.IsZero() {
			return c.started
		}
	}
	return now
}

// rounds is how many there were on the host that has most.
func (b *Builder) rounds() int {
	per, most := make(map[int]int), 0
	for _, c := range b.captures {
		per[c.host] += c.rounds
		most = max(most, per[c.host])
	}
	return most
}

func (b *Builder) look(w *worker, l *capture.Look, of *captureSeen, main int) {
	b.looks++
	w.Looks++
	of.rounds = max(of.rounds, l.Round)
	o := &l.Observation
	w.Paused, w.PausedUS = max(w.Paused, o.PausedUSMax), w.PausedUS+o.PausedUSTotal
	w.Request = l.Request
	if w.Request == nil && len(l.Requests) > 0 {
		w.Request = &l.Requests[0].Request
	}
	w.Facts, w.engine, w.last = l.Facts, o.Engine, main
	if len(o.Breakpoints) > 0 {
		w.breaks = o.Breakpoints
	}
	// Events count from their look's beginning, rules from the first look.
	began := l.At
	if !of.started.IsZero() {
		began += of.started.Sub(b.zero(of.started))
	}
	base := began - w.first
	if !w.seen {
		w.seen, w.first, base = true, began, 0
	}
	w.shift(o.Stops+o.Samples, base)
	w.lastAt = max(w.lastAt, base+time.Duration(o.DurationMS)*time.Millisecond)
	at := time.Time{}
	if !of.started.IsZero() {
		at = of.started.Add(l.At)
		if b.from.IsZero() || at.Before(b.from) {
			b.from = at
		}
		if at.After(b.to) {
			b.to = at
		}
	}
	if t := b.tick(of, l.Round, at); t != nil {
		t.workers++
		w.looks = append(w.looks, lookAt{moment{t, of.started.UnixNano()}, main})
	}
}

// shift moves the times of the last n events.
func (w *worker) shift(n int, by time.Duration) {
	if by <= 0 || len(w.events) == 0 {
		return
	}
	n = min(n, len(w.events))
	for i := range n {
		j := (w.next + len(w.events) - 1 - i) % len(w.events)
		w.events[j].At += by
	}
}

func (b *Builder) tick(of *captureSeen, round int, at time.Time) *tick {
	k := tickID{of, round}
	if t, ok := b.byTick[k]; ok {
		return t
	}
	if len(b.ticks) >= MaxTicks {
		b.lost.ticks++
		return nil
	}
	t := &tick{host: of.host, round: round, at: at}
	b.ticks, b.byTick[k] = append(b.ticks, t), t
	return t
}

// maxFailures bounds the failures that are listed.
const maxFailures = 10_000

func (b *Builder) fail(host, pid, round int, text string) {
	if len(b.failures) >= maxFailures {
		b.lost.failures++
		return
	}
	b.failures = append(b.failures, Failure{Host: host, PID: pid, Round: round, Error: text})
}
