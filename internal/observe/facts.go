package observe

import (
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// facts collects the evidence beside the stacks. What can't be collected is
// left out: rules then know that it is missing.
type facts struct {
	cpu, queued time.Duration
	known       bool
}

// begin notes the CPU time that was used before.
func (f *facts) begin(l *target.Live) {
	var err error
	f.cpu, f.queued, err = l.CPUTime()
	f.known = err == nil
}

// end fills in the facts. ran is for how long the process could run.
func (f *facts) end(l *target.Live, ran time.Duration, c *capture.Capture, rt *zend.Runtime, th *zend.Thread) {
	m := make(map[string]any)
	if cpu, queued, err := l.CPUTime(); err == nil && f.known && ran > 0 {
		most := 100 * float64(max(1, threads(l)))
		m["proc.cpu_pct"] = min(100*float64(cpu-f.cpu)/float64(ran), most)
		// On a busy host a loop gets less than a whole processor.
		m["proc.runnable_pct"] = min(100*float64(cpu-f.cpu+queued-f.queued)/float64(ran), most)
	}
	if st, err := l.State(); err == nil {
		m["proc.state"] = st
		m["proc.threads"] = int64(threads(l))
	}
	if age, err := l.Age(); err == nil {
		m["proc.age_s"] = age.Seconds()
	}
	if rt != nil {
		m["php.version"], m["php.sapi"] = rt.Version, rt.SAPI
	}
	if th != nil {
		if mem, err := th.Memory(l.Mem); err == nil {
			m["php.memory_usage"] = int64(mem.Reserved)
			if mem.Limit < 1<<62 { // memory_limit=-1 is a limit nobody reaches
				m["php.memory_limit"] = int64(mem.Limit)
			}
		}
		if c.Target.Request != nil {
			m["php.request_age_s"] = float64(c.Target.Request.AgeMS) / 1000
		}
	}
	c.Facts = m
}

func threads(l *target.Live) int {
	tids, err := l.Threads()
	if err != nil {
		return 0
	}
	return len(tids)
}
