package observe

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
)

// Worker is a process that is looked at more than once. What was found out about
// it is kept between the looks, what was parsed of its files is shared with all
// workers of the Observer. Several Workers may be used at once, each by one
// goroutine at a time.
type Worker struct {
	o    *Observer
	s    *session
	live *target.Live
	// Counters of looks before this one: older is at least shortest ago once
	// there was time, newer follows it.
	older, newer counted
	follow       following
}

// counted are counters and when they were read.
type counted struct {
	facts
	at time.Time
}

// Open recognises a running PHP. The caller closes the Worker.
func (o *Observer) Open(pid int) (*Worker, error) {
	live, err := target.Open(pid)
	if err != nil {
		return nil, err
	}
	s, err := o.open(live)
	if err != nil {
		_ = live.Close()
		return nil, err
	}
	w := &Worker{o: o, s: s, live: live}
	s.spare = &o.spare
	s.ready()
	w.newer.begin(live)
	w.newer.at = time.Now()
	w.older = w.newer
	return w, nil
}

// PID is the process's number.
func (w *Worker) PID() int { return w.live.PID }

// ready reads libc's debug information, where nobody has before. A distribution's
// file is compressed; inflating it beside the stops of other workers would make
// these long.
func (s *session) ready() {
	libc, err := s.image().Libc()
	if err != nil {
		return
	}
	if d, _ := libc.DWARF(); d != nil {
		_, _ = d.FramesAt(libc.File().Entry())
	}
}

// Start is when it began, in clock ticks after boot: with the pid, who it is.
func (w *Worker) Start() uint64 { return w.live.StartTime }

// Began is when the latest look was about to stop the worker: what it waited for
// before, such as memory to be tidied up, is no part of it.
func (w *Worker) Began() time.Time { return w.s.began }

// Close gives its files back.
func (w *Worker) Close() error {
	w.follow.close()
	return w.live.Close()
}

// shortest is the time over which the use of a processor is measured: the
// kernel counts a running thread's time at its ticks, which are up to 10 ms apart.
const shortest = 50 * time.Millisecond

// begin prepares another look.
func (w *Worker) begin() error {
	if !w.live.Alive() {
		return &proc.Error{PID: w.live.PID, What: "look at process", Err: proc.ErrNoProcess, Advice: "it has ended"}
	}
	s := w.s
	s.pipe = newPipeline(s)
	s.look = newLooker(w.o.Look)
	s.cap = capture.Capture{}
	s.since = time.Time{}
	now := counted{at: time.Now()}
	now.begin(w.live)
	s.facts = now.facts
	if now.at.Sub(w.newer.at) >= shortest {
		w.older, w.newer = w.newer, now
	}
	if b := &w.older; now.at.Sub(b.at) >= shortest {
		s.facts.cpu, s.facts.queued, s.facts.known = b.cpu, b.queued, b.known
		s.facts.read, s.facts.readKnown = b.read, b.readKnown
		s.since = b.at
	}
	return nil
}

// Look takes one joined stack of every thread, now, as Dump does. From the second look
// on its facts say for how long a thread has been in the call that it is in, and has
// waited for the same: see following.
func (w *Worker) Look(ctx context.Context) (*capture.Capture, error) {
	if err := w.begin(); err != nil {
		return nil, err
	}
	w.s.follow = &w.follow
	c, err := w.s.dump(ctx)
	w.s.follow = nil
	// Right behind a stop a worker that sleeps is still on its way back to sleep.
	if st := w.s.facts.state; err == nil && st != "" && c.Facts["proc.state"] == "R" {
		c.Facts["proc.state"] = st
	}
	return w.s.placed(c), err
}

// Observe watches the worker for some time, as Attach does. Modules that were
// loaded since the last look are known to it.
func (w *Worker) Observe(ctx context.Context, opt Options) (*capture.Capture, error) {
	if err := w.begin(); err != nil {
		return nil, err
	}
	w.s.facts.watch(w.live)
	popt, err := w.s.prepare(opt)
	if err != nil {
		return nil, err
	}
	undisturbed := func() {}
	if calm.Load() {
		undisturbed = quiet()
	}
	w.s.began = time.Now()
	res, err := ptrace.Observe(ctx, w.live.PID, popt, w.s.pipe)
	undisturbed()
	c, err := w.s.finish(res, err)
	// So close behind the last sample, too.
	if st := w.s.facts.state; c != nil && st != "" && c.Facts["proc.state"] == "R" && !busy(c.Facts) {
		c.Facts["proc.state"] = st
	}
	w.s.pipe = nil // its memory is wanted for the next worker
	return w.s.placed(c), err
}

// busy reports whether a worker wanted a processor most of the time.
func busy(facts map[string]any) bool {
	pct, ok := facts["proc.runnable_pct"].(float64)
	return ok && pct >= 50
}

// ran is for how long the counters in facts have counted.
func (s *session) ran() time.Duration {
	if s.since.IsZero() {
		return 0
	}
	return time.Since(s.since)
}

// placed adds the modules that the native frames are in, so that others can
// name the frames without this process.
func (s *session) placed(c *capture.Capture) *capture.Capture {
	if c == nil {
		return nil
	}
	img := s.image()
	known := func(pc uint64) bool {
		for i := range c.Modules {
			if m := &c.Modules[i]; pc >= m.Start && pc < m.End {
				return true
			}
		}
		return false
	}
	for i := range c.Stacks {
		for j := range c.Stacks[i].Frames {
			f := &c.Stacks[i].Frames[j]
			if f.Kind != stack.Native || f.PC == 0 || known(uint64(f.PC)) {
				continue
			}
			m, ok := img.ModuleAt(f.PC)
			if !ok {
				continue
			}
			c.Modules = append(c.Modules, capture.Module{
				Path: m.Path, BuildID: m.BuildID(), Start: uint64(m.Start), End: uint64(m.End), Bias: m.Bias,
			})
		}
	}
	return c
}

// spares are snapshots that wait for their next use. Copying into memory that
// was used before takes no page faults.
type spares struct {
	mu   sync.Mutex
	free []*target.Snapshot
}

// maxSpares bounds the snapshots that are kept, maxSpare the bytes of each.
const (
	maxSpares = 8
	maxSpare  = 1 << 20
)

func (p *spares) put(snaps []*target.Snapshot) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range snaps {
		if len(p.free) < maxSpares && s.Cap() <= maxSpare {
			p.free = append(p.free, s)
		}
	}
}

func (p *spares) take() *target.Snapshot {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.free)
	if n == 0 {
		return nil
	}
	s := p.free[n-1]
	p.free = p.free[:n-1]
	return s
}

// rehearsed is a snapshot that has room for what will be copied.
func (s *session) rehearsed() *target.Snapshot {
	snap := s.spare.take()
	if snap == nil {
		return s.rehearse()
	}
	snap.Reset(s.live.Mem)
	return snap
}

// stopped is held while a worker stands still: shared by those that look at many
// workers, alone by who sets or runs the garbage collector. calm says that the
// collector is run by hand. Both belong to the whole process, as the collector does.
var (
	stopped sync.RWMutex
	calm    atomic.Bool // changed with stopped held alone
)

const (
	// tidyAt is the least size of the heap at which a calm process collects, in
	// bytes, and tidyLimit the one at which Go's collector runs after all.
	tidyAt    = 64 << 20
	tidyLimit = 1 << 30
	// tidyGrowth is by how much the heap grows until it is worth another collection:
	// what is in use stays, however often one looks.
	tidyGrowth = 2
	// tidyMust is how many times the size at which it is worth it makes it urgent.
	tidyMust = 3
)

// Calm has garbage collected between the stops of workers only, until the function
// that it returns is called. For whoever looks at many workers: a collection that
// begins a moment before a stop would make it long.
func (o *Observer) Calm() (restore func()) {
	stopped.Lock()
	defer stopped.Unlock()
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(tidyLimit)
	calm.Store(true)
	return func() {
		stopped.Lock()
		defer stopped.Unlock()
		calm.Store(false)
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	}
}

// quiet keeps the garbage collector from beginning until the function that it
// returns is called: it would run while a worker stands still.
func quiet() func() {
	if calm.Load() {
		tidy()
		stopped.RLock()
		return stopped.RUnlock
	}
	stopped.Lock()
	collect := debug.SetGCPercent(-1)
	return func() {
		debug.SetGCPercent(collect)
		stopped.Unlock()
	}
}

// tidy collects garbage at a moment at which no worker stands still. While one does
// it is left for later, as long as memory allows: to wait for that one would keep all
// the others waiting.
func tidy() {
	few, many := untidy()
	switch {
	case !few:
		return
	case many:
		stopped.Lock()
	case !stopped.TryLock():
		return
	}
	defer stopped.Unlock()
	if few, _ = untidy(); few { // nobody else has
		runtime.GC()
	}
}

// untidy reports whether there is garbage enough to collect, and so much that it must
// be. Nothing is known to be in use that the latest collection did not find so.
func untidy() (few, many bool) {
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(m)
	heap, least := m[0].Value.Uint64(), max(tidyAt, tidyGrowth*m[1].Value.Uint64())
	return heap > least, heap > tidyMust*least
}
