package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// phase is a part of an observation.
type phase string

const (
	phaseStart  phase = "start-up"  // phpwhy reads files; nothing is traced yet
	phaseArm    phase = "arming"    // the first milliseconds of tracing
	phaseMiddle phase = "observing" // after that
	phaseEnd    phase = "disarming" // the last milliseconds
)

// How long the windows at the ends are.
const (
	armWindow = 5 * time.Millisecond
	endWindow = 5 * time.Millisecond
	// endEarly is how much before the expected end a window by the clock begins.
	endEarly = 2 * time.Millisecond
)

// plan is what is going to happen in a round. It follows from the seed alone,
// but for the moments, which are shares of times that the machine decides on.
type plan struct {
	seed   uint64
	event  *event
	kind   kind
	phase  phase
	at     float64 // where in the phase: 0 its beginning, 1 its end
	pause  string  // --max-pause
	length time.Duration
	// asked: the window at the end begins with a SIGINT to phpwhy, not when
	// its time is over.
	asked  bool
	stream bool // counted signals
	gap    time.Duration
}

func newPlan(seed uint64, only string) (plan, error) {
	r := rand.New(rand.NewPCG(seed, 0))
	p := plan{seed: seed, event: pick(r.IntN(totalWeight))}
	if only != "" {
		if p.event = eventNamed(only); p.event == nil {
			return p, fmt.Errorf("there is no event %q", only)
		}
	}
	p.kind = p.event.kinds[r.IntN(len(p.event.kinds))]
	// Half of the moments, and more, come from some milliseconds.
	switch x := r.Float64(); {
	case x < 0.30:
		p.phase = phaseArm
	case x < 0.55:
		p.phase = phaseEnd
	case x < 0.75:
		p.phase = phaseStart
	default:
		p.phase = phaseMiddle
	}
	p.at = r.Float64()
	p.pause = []string{"20%", "100%"}[r.IntN(2)]
	p.length = 40*time.Millisecond + time.Duration(r.IntN(80))*time.Millisecond
	p.asked = r.IntN(2) == 0
	p.stream = p.event.stream || !p.event.replaces && r.IntN(4) == 0
	p.gap = time.Duration(r.Float64() * float64(4*time.Millisecond))
	return p, nil
}

func (p *plan) String() string {
	return fmt.Sprintf("seed %d: %s, worker %s, %s at %.2f, length %v, max-pause %s, asked %t, signals %t, gap %v",
		p.seed, p.event.name, p.kind, p.phase, p.at, p.length, p.pause, p.asked, p.stream, p.gap)
}
