package observe

import (
	"sync"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/symbolize"
)

const (
	// queued bounds the stops that were copied but not yet read, and queuedOfMany
	// does where many workers are observed: each takes some 150 kB.
	queued, queuedOfMany = 256, 64
	// firstStack is what is copied of a stack at first, in bytes; it doubles
	// up to maxStack when a walk runs out of copied memory.
	firstStack = 32 << 10
	maxStack   = 1 << 20
	// dumpStack is what a dump copies of each stack, in bytes.
	dumpStack = 1 << 20
	// refreshEvery bounds how often new modules are looked for.
	refreshEvery = 100 * time.Millisecond
	// maxArgs is how many register arguments of a breakpoint are recorded.
	maxArgs = 6
)

// copied is a stop that the worker has already left behind.
type copied struct {
	ev   capture.Event
	at   place
	snap *target.Snapshot
	// taken is the stack that the stop was taken for, if it is read to see
	// whether that was right; -1 else.
	taken int
	// Of a sample: how often the thread had waited, when that is known.
	switches uint64
	counted  bool
}

// pipeline takes stops on the tracer's thread and reads them on its own.
type pipeline struct {
	s        *session
	free     chan *target.Snapshot // nil until stops are awaited
	work     chan copied
	done     sync.WaitGroup
	once     sync.Once
	started  sync.Once
	progress func(stops, samples int)

	limit   int // of a stack copy; only the tracer's thread writes it
	limitMu sync.Mutex
	dropped int

	stacks         interner
	events         []capture.Event // of the reader
	stops, samples int
	// What the tracer's thread recognised by itself.
	known   known
	told    ledger
	recalls map[place][]*recipe // the reader's own list of what it has taught
	// audit, for tests, has every stop that was recognised read all the same and
	// is told what it was taken for and what it is.
	audit       func(taken, is int)
	lastRefresh time.Time
	same        sameCall
	waits       waitTracker
	tables      tables
}

func newPipeline(s *session) *pipeline {
	return &pipeline{s: s, limit: firstStack, recalls: make(map[place][]*recipe), waits: waitTracker{locks: s.locks}}
}

// fill makes the snapshots, each as large as the first turned out to be: a
// stop is no time to ask for memory.
func (p *pipeline) fill(first *target.Snapshot, size int) {
	n := queued
	if p.s.spare != nil {
		n = queuedOfMany
	}
	p.free, p.work = make(chan *target.Snapshot, n), make(chan copied, n)
	p.free <- first
	for range n - 1 {
		s := target.NewSnapshot(p.s.live.Mem)
		s.Grow(size)
		p.free <- s
	}
}

// OnStop implements ptrace.Handler: it copies and returns.
func (p *pipeline) OnStop(st *ptrace.Stop) ptrace.Verdict {
	p.started.Do(func() {
		p.done.Add(1)
		go p.run()
	})
	ev := p.event(st)
	taken := -1
	if ev.Kind == capture.Stop && !p.s.look.any {
		if r := p.known.find(p.s.live.Mem, p.s.image(), at(st), &st.Regs); r != nil {
			if r.php {
				p.s.led(st.TID, st.Regs.TLS)
			}
			if taken = r.stack; p.audit == nil {
				ev.Stack = taken
				p.told.add(ev)
				return ptrace.Continue
			}
		}
	}
	var snap *target.Snapshot
	select {
	case snap = <-p.free:
	default:
		// Reading can't keep up. The worker goes on rather than waiting for us.
		p.dropped++
		return ptrace.Continue
	}
	snap.Reset(p.s.live.Mem)
	snap.TID, snap.Regs = st.TID, st.Regs
	p.limitMu.Lock()
	limit := p.limit
	p.limitMu.Unlock()
	p.s.copy(snap, limit)
	c := copied{ev: ev, at: at(st), snap: snap, taken: taken}
	if ev.Kind == capture.Sample {
		c.switches, c.counted = p.waits.count(p.s.live.Process, st.TID)
	}
	p.work <- c
	return ptrace.Continue
}

// event describes a stop but for its stack.
func (p *pipeline) event(st *ptrace.Stop) capture.Event {
	ev := capture.Event{At: st.At, Kind: capture.Sample, TID: st.TID}
	if st.Kind != ptrace.KindBreakpoint {
		return ev
	}
	ev.Kind = capture.Stop
	ev.Symbol = p.s.cap.Observation.Breakpoints[st.Breakpoint].Symbol
	ev.Args = p.told.args()
	for i := range maxArgs {
		v, ok := st.Regs.Arg(i)
		if !ok {
			break
		}
		ev.Args = append(ev.Args, v)
	}
	return ev
}

func (p *pipeline) run() {
	defer p.done.Done()
	var tick <-chan time.Time
	if p.progress != nil {
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case c, more := <-p.work:
			if !more {
				return
			}
			p.read(c)
			p.free <- c.snap
		case <-tick:
			p.progress(p.stops+p.told.len(), p.samples)
		}
	}
}

// read turns a copied stop into an event.
func (p *pipeline) read(c copied) {
	var rec *recorder
	if c.ev.Kind == capture.Stop && !p.s.look.any {
		for _, r := range p.recalls[c.at] {
			if c.taken >= 0 || r.img != p.s.image() || !r.in(c.snap) {
				continue
			}
			if c.taken = r.stack; p.audit == nil {
				p.count(c.ev, r.stack)
				return
			}
		}
		rec = &recorder{r: c.snap}
	}
	rd := p.s.unwound(c.snap, rec)
	if rd.trace.End == symbolize.Truncated {
		p.retry(&rd, c.snap, rec)
	}
	withPHP := runsPHP(&rd.trace) || c.ev.TID == p.s.live.PID
	st := p.s.joined(c.snap, &rd, rec, withPHP)
	if z := rd.php; z != nil && c.ev.Kind == capture.Sample {
		state, ok := z.th.CallState(c.snap, z.frames)
		if len(z.frames) > 0 {
			now := wait{switches: c.switches, counted: c.counted, php: state, phpKnown: ok}
			p.waits.see(p.s.live, c.snap, &st, c.ev.At, now)
		}
		p.same.see(c.ev.TID, c.ev.At, state, ok)
		if n, ok := z.th.LongestArgument(p.s.live.Mem, c.snap, z.frames); ok {
			p.same.longest, p.same.called = max(p.same.longest, n), true
		}
		p.tables.see(p.s, z, c.snap, &st)
	}
	if c.taken >= 0 {
		p.audit(c.taken, p.add(c.ev, st))
		return
	}
	id := p.add(c.ev, st)
	if rec == nil || len(p.recalls[c.at]) >= maxAtPlace || len(p.recalls) >= maxPlaces && p.recalls[c.at] == nil {
		return
	}
	if r := p.s.recipe(c.at, c.snap, &rd, rec); r != nil {
		r.stack = id
		p.recalls[c.at] = append(p.recalls[c.at], r)
		p.known.teach(r)
	}
}

// retry gives a truncated walk another chance when modules were loaded since,
// and has more of the stack copied from the next stop on.
func (p *pipeline) retry(rd *reading, snap *target.Snapshot, rec *recorder) {
	if len(rd.trace.Frames) == 0 {
		return
	}
	last := rd.trace.Frames[len(rd.trace.Frames)-1].PC
	if p.s.image().Mappings().Find(last) == nil && time.Since(p.lastRefresh) > refreshEvery {
		p.lastRefresh = time.Now()
		p.s.refreshImage()
		*rd = p.s.unwound(snap, rec)
	}
	if rd.trace.End == symbolize.Truncated {
		p.limitMu.Lock()
		p.limit = min(2*p.limit, maxStack)
		p.limitMu.Unlock()
	}
}

// add records an event and returns the number of its stack.
func (p *pipeline) add(ev capture.Event, st stack.Stack) int {
	if ev.Kind == capture.Stop {
		if len(st.Frames) > 0 {
			if f := &st.Frames[0]; f.Unresolved() {
				f.Function = ev.Symbol // it has just made that system call
			}
			st.Frames[0].Args = arguments(ev.Symbol, ev.Args)
		}
	}
	id := p.stacks.add(st)
	p.count(ev, id)
	return id
}

// count records an event whose stack is known.
func (p *pipeline) count(ev capture.Event, id int) {
	if ev.Kind == capture.Stop {
		p.stops++
	} else {
		p.samples++
	}
	ev.Stack = id
	p.events = append(p.events, ev)
}

// close waits until everything that was copied has been read.
func (p *pipeline) close() {
	p.once.Do(func() {
		if p.work != nil {
			close(p.work)
		}
	})
	p.done.Wait()
	p.waits.close()
}

func (p *pipeline) into(c *capture.Capture) {
	c.Stacks = p.stacks.stacks
	c.Events = p.told.into(p.events)
	c.Observation.Stops, c.Observation.Samples = p.stops+p.told.len(), p.samples
	p.s.look.into(c)
}
