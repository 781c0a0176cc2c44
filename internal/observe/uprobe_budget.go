package observe

import (
	"slices"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/perf"
)

const (
	// What a hit takes of the worker's time: the trap, a second one where the
	// instruction has to be stepped, and the copying. They were measured once, in
	// a virtual machine (TestWhatAHitCosts); nothing tells while it happens.
	trapCost = time.Microsecond
	stepCost = 14 * time.Microsecond
	copyCost = 2 * time.Microsecond
	// probeSlack is how far the cost may exceed its share before the
	// breakpoints are taken out, and minRest how long they stay out at least:
	// the kernel needs some 0.1 s for it.
	probeSlack = 20 * time.Millisecond
	minRest    = 200 * time.Millisecond
)

// cost is what the observation has taken of the worker's time, as far as known.
func (p *prober) cost() time.Duration {
	return paid(p.total(), p.seen, p.steps)
}

func paid(hits []uint64, copied uint64, steps bool) time.Duration {
	each := trapCost
	if steps {
		each = stepCost
	}
	return time.Duration(sum(hits))*each + time.Duration(copied)*copyCost
}

func sum(ns []uint64) (total uint64) {
	for _, n := range ns {
		total += n
	}
	return total
}

func (p *prober) total() []uint64 {
	out := make([]uint64, len(p.o.Breakpoints))
	copy(out, p.hits)
	for i, n := range p.p.Hits() {
		out[i] += n
	}
	return out
}

// budget holds the worker's cost to its share: the breakpoints are taken out
// for a while when it has paid more. To leave them in and copy nothing would
// still cost it the traps.
func (p *prober) budget(now time.Time) error {
	if p.o.MaxPause <= 0 || p.o.MaxPause >= 1 {
		return nil
	}
	// The share is of what the worker has had of processors, which on a busy
	// host is less than the time.
	if now.Sub(p.asked) >= lookEvery {
		p.asked = now
		if cpu, _, err := p.s.live.CPUTime(); err == nil {
			p.cpu = max(p.cpu, cpu-p.cpu0)
		}
	}
	over := p.cost() - time.Duration(p.o.MaxPause*float64(p.cpu))
	switch {
	case p.out && over <= 0 && now.After(p.until):
		p.out = false
		return p.p.Resume(p.left())
	case !p.out && over > probeSlack:
		p.out, p.until = true, now.Add(minRest)
		p.res.Disarmed++
		return p.p.Pause()
	}
	return nil
}

// finish says what the report should about the whole.
func (p *prober) finish() {
	s, r := p.s, &p.reader
	p.res.Hits = p.hits
	p.res.Samples = uint64(s.pipe.samples)
	slices.SortStableFunc(s.pipe.events, func(a, b capture.Event) int { return int(a.At - b.At) })
	if n := sum(p.hits); p.skipped && n > uint64(s.pipe.stops) {
		s.pipe.dropped += int(n) - s.pipe.stops
	}
	s.note("the worker was never stopped; %d hits and %d copied stacks took some %v of its time (an estimate)",
		sum(p.hits), p.seen, paid(p.hits, p.seen, p.steps).Round(10*time.Microsecond))
	if p.steps {
		s.note("the kernel has to step over a breakpoint's instruction, which makes each hit some %v long", stepCost)
	}
	if r.gone > 0 {
		s.note("of %d stacks PHP's frames had gone before their names were read", r.gone)
	}
	if r.unstopped > 0 {
		s.note("%d samples were read of a worker that waited, for something or for a processor: PHP frames only", r.unstopped)
	}
	if r.truncated > 0 {
		s.note("%d stacks are longer than the %d KiB that are copied", r.truncated, perf.MaxStack>>10)
	}
}
