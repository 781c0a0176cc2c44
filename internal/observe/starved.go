package observe

import (
	"fmt"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/target"
)

// watch begins as begin does, for an observation that takes its time.
func (f *facts) watch(l *target.Live) {
	f.begin(l)
	limits, _ := l.CPULimits()
	f.limits = append([]proc.CPULimit{}, limits...)
}

// starved is what kept a worker from running most of the time that it could have: it
// is slow whatever it does. It is "" for any other.
func (f *facts) starved(l *target.Live, m map[string]any) string {
	cpu, ok := m["proc.cpu_pct"].(float64)
	runnable, _ := m["proc.runnable_pct"].(float64)
	if f.limits == nil || !ok || runnable < 50 || cpu > runnable/2 {
		return ""
	}
	limits, all := l.CPULimits()
	if g, held := holding(f.limits, limits); held > 0 {
		return fmt.Sprintf("control group %s may use %v in each %v and was held back for %v meanwhile", g.Group, g.Quota, g.Period, held.Round(time.Millisecond))
	}
	if !all {
		return "other work on this host had it, or a CPU limit that can't be seen from here holds it back"
	}
	return "other work on this host had it"
}

// holding is the group that was held back for longest, and for how long.
func holding(before, after []proc.CPULimit) (most proc.CPULimit, held time.Duration) {
	was := make(map[string]time.Duration)
	for _, l := range before {
		was[l.Group] = l.Held
	}
	for _, l := range after {
		if h, known := was[l.Group]; known && l.Held-h > held {
			most, held = l, l.Held-h
		}
	}
	return most, held
}
