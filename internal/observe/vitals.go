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
	state       string
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
	if v.state, err = l.State(); err != nil || v.state == "Z" || v.state == "X" {
		return
	}
	v.threads = threads(l)
	v.age, _ = l.Age()
	v.known = true
	f.last = v
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
