package observe

import (
	"context"
	"errors"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/zend"
)

const (
	// idle is how long to wait when nothing has been copied. Nothing wakes us:
	// that would cost the worker more than the copying does.
	idle = time.Millisecond
	// lookEvery is how often the process and its threads are looked at.
	lookEvery = 20 * time.Millisecond
	// maxRest bounds how often the rings are read at the end.
	maxRest = 100
	// runningTries bounds how often the stack of a thread that does not run is
	// read for a sample.
	runningTries = 50
)

// prober observes by uprobes. The worker is not stopped and not traced.
type prober struct {
	s      *session
	o      ptrace.Options
	po     perf.Options
	p      *perf.Session
	reader probeReader
	res    ptrace.Result
	steps  bool     // an instruction is single-stepped
	hits   []uint64 // of sessions that were closed
	seen   uint64   // samples that were read
	ticked uint64   // clock samples at the last tick
	// skipped says that hits came which were not to be copied, though they were
	// wanted.
	skipped bool

	out   bool          // the breakpoints are, for the budget's sake
	until time.Time     // how long at least
	asked time.Time     // when the worker's processor time was last read
	cpu0  time.Duration // which it had used before
	cpu   time.Duration // and since
}

// probe observes as ptrace.Observe does.
func (s *session) probe(ctx context.Context, o ptrace.Options) (res ptrace.Result, err error) {
	p := &prober{s: s, o: o, res: ptrace.Result{PID: s.live.PID, Engine: EngineUprobe}}
	p.reader = probeReader{s: s, max: o.MaxStops, known: make(map[string]*joined), threads: make(map[int]*probedThread)}
	files, err := p.points()
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return p.res, meanwhile(s.live, err)
	}
	// Reading debug information takes longer than all the rest; what is copied
	// meanwhile would be lost.
	s.warmNames()
	guard, err := perf.StartGuard(p.po.Points)
	if err != nil {
		return p.res, err
	}
	defer guard.Dismiss()
	if err := p.open(); err != nil {
		return p.res, meanwhile(s.live, err)
	}
	began := time.Now()
	p.cpu0, _, _ = p.s.live.CPUTime()
	p.reader.begun = perf.Now()
	if ended, lerr := p.look(); lerr != nil || ended { // before its hits are looked up in the wrong program
		err = lerr
	} else {
		err = p.loop(ctx, began)
	}
	p.res.Duration = time.Since(began)
	err = errors.Join(err, p.close())
	p.finish()
	return p.res, err
}

func (p *prober) loop(ctx context.Context, began time.Time) error {
	r := &p.reader
	look, tick, shown := began, began, began
	for {
		n, err := p.p.Read(r.take)
		p.seen += uint64(n)
		if err != nil {
			return err
		}
		p.commit()
		if !p.out {
			p.allow()
		}
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			p.res.Ended = ptrace.EndCancelled
			return p.rest()
		case p.o.MaxStops > 0 && p.s.pipe.stops >= p.o.MaxStops:
			p.res.Ended = ptrace.EndStops
			return nil
		case p.o.For > 0 && now.Sub(began) >= p.o.For:
			p.res.Ended = ptrace.EndDuration
			return p.rest()
		}
		if now.Sub(look) >= lookEvery {
			look = now
			if ended, err := p.look(); err != nil || ended {
				return err
			}
		}
		if since := now.Sub(tick); p.o.SampleEvery > 0 && since >= p.o.SampleEvery {
			tick = now
			p.s.facts.sampled(p.s.live)
			if since < 2*p.o.SampleEvery { // else it is this process that was late
				p.tick(now.Sub(began))
			}
		}
		if f := p.s.pipe.progress; f != nil && now.Sub(shown) > 50*time.Millisecond {
			shown = now
			f(p.s.pipe.stops, p.s.pipe.samples)
		}
		if err := p.budget(now); err != nil {
			return err
		}
		if n == 0 {
			time.Sleep(idle)
		}
	}
}

// rest reads what was copied until the end.
func (p *prober) rest() error {
	p.p.Allow(0)
	for range maxRest {
		n, err := p.p.Read(p.reader.take)
		p.seen += uint64(n)
		p.reader.commit()
		if n == 0 || err != nil {
			return err
		}
	}
	return nil
}

// commit records what was taken, and asks for longer copies where they were
// too short.
func (p *prober) commit() {
	r := &p.reader
	r.commit()
	want := p.po
	if r.longList && !want.Long {
		want.Long = true
	}
	if r.longStack && want.Stack < perf.MaxStack {
		want.Stack = perf.MaxStack
	}
	r.longList, r.longStack = false, false
	if want.Long == p.po.Long && want.Stack == p.po.Stack {
		return
	}
	was, old := p.p, p.po
	p.po = want
	if err := p.open(); err != nil {
		p.s.note("longer stacks can't be copied: %v", err)
		p.p, p.po = was, old
		p.po.Long, p.po.Stack = want.Long, want.Stack // don't try again
		return
	}
	if err := was.Close(); err != nil {
		p.s.note("%v", err)
	}
}

// retire reads what is left in a session that another takes over from, and
// keeps its counts. Hits that both see are the other's.
func (p *prober) retire(was *perf.Session) error {
	was.Allow(0)
	if err := was.Watch(nil); err != nil {
		return err
	}
	n, err := was.Read(p.reader.take)
	p.seen += uint64(n)
	p.reader.commit()
	hits := was.Hits()
	if p.hits == nil {
		p.hits = make([]uint64, len(hits))
	}
	for i, n := range hits {
		p.hits[i] += n
	}
	return err
}

// look sees whether the process is still there, and its threads.
func (p *prober) look() (ended bool, err error) {
	if !p.s.live.Alive() {
		p.res.Ended = ptrace.EndExited
		return true, nil
	}
	if p.s.live.Replaced() {
		p.res.Ended = ptrace.EndExec
		return true, nil
	}
	if err := p.threads(); err != nil && !errors.Is(err, proc.ErrNoProcess) {
		return false, err
	}
	return false, nil
}

// tick samples a process that the clock has not looked at, because it waits.
func (p *prober) tick(at time.Duration) {
	s := p.s
	if p.reader.clocks != p.ticked {
		p.ticked = p.reader.clocks
		return
	}
	rt := s.runtime()
	if rt == nil {
		return
	}
	threads := []phpThread{{tid: s.live.PID}}
	switch {
	case rt.ZTS:
		threads = s.phpThreads(rt)
	case s.facts.last.state == "R":
		return // it waits for a processor: the clock looks at it, natively, when it has one
	}
	for _, t := range threads {
		th, err := rt.Thread(s.live.Mem, t.tls)
		if err != nil {
			continue
		}
		z, _ := th.Sample(s.live.Mem, runningTries)
		if errors.Is(z.Err, zend.ErrTorn) || rt.ZTS && len(z.Frames) == 0 {
			continue
		}
		s.led(t.tid, t.tls)
		s.pipe.add(capture.Event{Kind: capture.Sample, TID: t.tid, At: at}, phpOnly(&z))
		p.reader.unstopped++
	}
}

func (p *prober) close() error {
	p.hits = p.total()
	return p.p.Close()
}
