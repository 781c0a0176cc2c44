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
	// does where many workers are observed; room bounds the bytes that their copies
	// take, of which there are fewQueued at least. One takes some 150 kB, and up to
	// maxStack and more where stacks are deep.
	queued, queuedOfMany, fewQueued = 256, 64, 16
	room                            = 20 << 20
	// firstStack is what is copied at first of a stack of unknown length, in bytes;
	// it doubles up to maxStack when a walk runs out of copied memory. Of the main
	// thread's, whose base is known, as much as there is up to maxStack is copied.
	firstStack = 32 << 10
	maxStack   = 1 << 20
	// redZone is what is copied below the stack pointer, in bytes.
	redZone = 128
	// besides is room for what is copied besides the stack, in bytes.
	besides = 48 << 10
	// dumpStack is what a dump copies of each stack, in bytes.
	dumpStack = 1 << 20
	// refreshEvery bounds how often new modules are looked for in vain.
	refreshEvery = 100 * time.Millisecond
	// maxArgs is how many register arguments of a breakpoint are recorded.
	maxArgs = 6
)

// copied is a stop that the worker has already left behind.
type copied struct {
	ev   capture.Event
	at   place
	snap *target.Snapshot
	// engine tells that PHP had started, and was copied from.
	engine bool
	// had is the room that snap had before, in bytes.
	had int
	// grow is not 0 for a snapshot that only needs more room, in bytes.
	grow int
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

	limit   int // of a stack copy
	limitMu sync.Mutex
	dropped int
	// held are the bytes that all snapshots have room for, snaps how many there are,
	// and most is what the largest has held. Only the reader changes them, once stops
	// are awaited.
	held, snaps, most int

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
	vainRefresh time.Time // when the modules were last read and it did not help
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
	n = max(fewQueued, min(n, room/max(size, 1)))
	p.free, p.work = make(chan *target.Snapshot, n), make(chan copied, n)
	p.snaps, p.held = n, first.Cap()
	p.free <- first
	for range n - 1 {
		s := target.NewSnapshot(p.s.live.Mem)
		s.Grow(size)
		p.held += s.Cap()
		p.free <- s
	}
}

// release hands a snapshot back with room for what others have held, or gives it
// up when all together have grown beyond their room.
func (p *pipeline) release(c copied) {
	s, had := c.snap, c.snap.Cap()
	// What exceeds the deepest stack and its surroundings is too rare to be kept room for.
	p.most = max(p.most, min(s.Size(), maxStack+besides))
	s.Reset(p.s.live.Mem)
	if want := max(c.grow, p.most); want > had {
		s.Grow(want + want/8)
	}
	// A stop may have had it grow as well.
	p.held += s.Cap() - c.had
	if p.held > room && p.snaps > fewQueued {
		p.held -= s.Cap()
		p.snaps--
		return
	}
	p.free <- s
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
		return ptrace.Missed
	}
	snap.Reset(p.s.live.Mem)
	snap.TID, snap.Regs = st.TID, st.Regs
	had := snap.Cap()
	limit := p.limitNow()
	if n, ok := target.Depth(snap.Regs.SP(), p.s.image().Mappings()); ok {
		limit = int(min(n+redZone, maxStack))
		if need := limit + besides; need > had && ev.Kind == capture.Stop {
			// A stop is no time to ask for memory: the collector may want to run.
			p.dropped++
			p.work <- copied{snap: snap, had: had, grow: need}
			return ptrace.Missed
		}
	}
	engine := p.s.copy(snap, limit)
	c := copied{ev: ev, at: at(st), snap: snap, had: had, engine: engine, taken: taken}
	if ev.Kind == capture.Sample {
		c.switches, c.counted = p.waits.count(p.s.live.Process, st.TID)
	}
	p.work <- c
	return ptrace.Continue
}

// limitNow is how much to copy of a stack of unknown length, in bytes.
func (p *pipeline) limitNow() int {
	p.limitMu.Lock()
	defer p.limitMu.Unlock()
	return p.limit
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
			if c.grow == 0 {
				p.read(c)
			}
			p.release(c)
		case <-tick:
			p.progress(p.stops+p.told.len(), p.samples)
		}
	}
}

// read turns a copied stop into an event.
func (p *pipeline) read(c copied) {
	var rec *recorder
	if c.ev.Kind == capture.Stop && !p.s.look.any && c.engine {
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
	if c.ev.Kind == capture.Sample {
		p.s.facts.sampled(p.s.live)
	}
	rd := p.s.unwound(c.snap, rec)
	p.again(&rd, c.snap, rec)
	if !c.engine { // it may have started since
		p.add(c.ev, stack.Join(p.s.natives(rd.img, &rd.trace)))
		return
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

// again gives a walk another chance when it came through code that was loaded
// since, and has more of the stack copied from the next stop on when it was cut off.
func (p *pipeline) again(rd *reading, snap *target.Snapshot, rec *recorder) {
	if rd.img.Outdated(&rd.walk) && time.Since(p.vainRefresh) > refreshEvery {
		img := p.s.refreshImage()
		if *rd = p.s.unwound(snap, rec); img.Outdated(&rd.walk) {
			p.vainRefresh = time.Now()
		}
	}
	if rd.trace.End == symbolize.Truncated && len(rd.trace.Frames) > 0 {
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
