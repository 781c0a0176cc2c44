package observe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// idle is how long to wait when nothing has been copied. Nothing wakes us:
	// that would cost the worker more than the copying does.
	idle = time.Millisecond
	// lookEvery is how often the process and its threads are looked at.
	lookEvery = 20 * time.Millisecond
	// What a hit takes of the worker's time: the trap, a second one where the
	// instruction has to be stepped, and the copying. They were measured once, in
	// a virtual machine (TestWhatAHitCosts); nothing tells while it happens.
	trapCost = 800 * time.Nanosecond
	stepCost = 12 * time.Microsecond
	copyCost = 1600 * time.Nanosecond
	// probeSlack is how far the cost may exceed its share before less is copied,
	// and softRest how long to wait for that to help before the breakpoints are
	// taken out. They stay out for minRest at least: the kernel needs some 0.1 s.
	probeSlack = 10 * time.Millisecond
	softRest   = 50 * time.Millisecond
	minRest    = 200 * time.Millisecond
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

	state int           // of the budget
	until time.Time     // how long it stays so
	over  time.Duration // what the worker had paid too much when the rest began
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
		return p.res, err
	}
	// Reading debug information takes longer than all the rest; what is copied
	// meanwhile would be lost.
	s.warm()
	if err := p.open(); err != nil {
		return p.res, err
	}
	began := time.Now()
	p.cpu0, _, _ = p.s.live.CPUTime()
	p.reader.begun = perf.Now()
	err = p.loop(ctx, began)
	p.res.Duration = time.Since(began)
	err = errors.Join(err, p.close())
	p.finish()
	return p.res, err
}

// warm names the functions that every stack has.
func (s *session) warm() {
	img := s.image()
	var w symbolize.Walk
	for _, name := range []string{stack.Executor, "_emalloc", "concat_function", "php_execute_script"} {
		if sym, ok := s.php.Symbol(name); ok {
			w.Frames = append(w.Frames, symbolize.PhysicalFrame{PC: s.php.Runtime(sym.Value), Exact: true, How: symbolize.HowEntry})
		}
	}
	if libc, err := img.Libc(); err == nil {
		for _, name := range []string{"mmap", "mremap", "__libc_start_main"} {
			if sym, ok := libc.Symbol(name); ok {
				w.Frames = append(w.Frames, symbolize.PhysicalFrame{PC: libc.Runtime(sym.Value), Exact: true, How: symbolize.HowEntry})
			}
		}
	}
	img.Symbolize(w)
}

// points finds the places in the very files that are mapped.
func (p *prober) points() (files []*os.File, err error) {
	img := p.s.image()
	libc, lerr := img.Libc()
	for _, b := range p.o.Breakpoints {
		m := img.Mappings().Find(b.Addr)
		if m == nil {
			return files, fmt.Errorf("%s at %s: %w", b.Name, b.Addr, remote.ErrUnmapped)
		}
		f, err := p.s.live.OpenMapped(*m)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		pt := perf.Point{File: f, Offset: perf.OffsetIn(m, b.Addr), Name: b.Name}
		entry := pt.Offset
		// musl's code has no table to unwind by, except at a function's entry.
		if sym, ok := libc.Symbol(b.Name); lerr == nil && ok && !isMusl(libc.Name) {
			code := make([]byte, min(sym.Size, uint64(m.End-b.Addr)))
			if n, err := f.ReadAt(code, int64(pt.Offset)); err == nil {
				at := perf.Find(code[:n])
				pt.Offset += at.Offset
				p.steps = p.steps || !at.Emulated
			}
		} else {
			p.steps = true
		}
		p.po.Points = append(p.po.Points, pt)
		p.reader.at = append(p.reader.at, b.Addr+remote.Addr(pt.Offset-entry))
	}
	return files, nil
}

func isMusl(name string) bool { return strings.Contains(name, "musl") || name == "libc.so" }

// open begins to watch.
func (p *prober) open() (err error) {
	p.po.PID, p.po.SampleEvery = p.s.live.PID, p.o.SampleEvery
	p.po.Follow = p.follow()
	if p.p, err = perf.Open(p.po); err != nil {
		return err
	}
	if err := p.threads(); err != nil {
		return errors.Join(err, p.p.Close())
	}
	if err := p.p.Resume(p.left()); err != nil {
		return errors.Join(err, p.p.Close())
	}
	return nil
}

// allow lets so many hits be copied as fit in half a ring: the other half may
// still be full of those before. A hit that finds no room costs the worker
// nearly as much as one that is copied.
func (p *prober) allow() {
	if p.p.Allowed() == 0 && p.left() > 0 {
		p.skipped = true
	}
	p.p.Allow(p.left())
}

// left is how many hits are to be copied next.
func (p *prober) left() int {
	n := max(1, p.p.Room()/2)
	if p.o.MaxStops > 0 {
		n = min(n, p.o.MaxStops-p.reader.stops)
	}
	return n
}

// follow is what to copy of PHP's frames, nil where that can't be said.
func (p *prober) follow() *perf.Follow {
	rt := p.s.runtime()
	if rt == nil {
		return nil
	}
	if rt.ZTS {
		p.s.phpThreads(rt) // which checks the layout
	}
	c, ok := rt.Any().Chain()
	if !ok {
		p.s.note("the uprobe engine shows no PHP frames of PHP 5; take --engine hwbp or int3")
		return nil
	}
	if rt.ZTS {
		c.Head = 0 // each thread has its own
	}
	return &perf.Follow{
		Head: c.Head, Extra: c.Before, NodeSize: c.Size, DescSize: c.FuncSize,
		Next: c.Prev, Desc: c.Func, A: c.Opline, B: c.This, Flags: c.CallInfo,
	}
}

// threads has the clock watch all threads. The breakpoints are of the whole
// process: no thread is unseen by them, however new it is.
func (p *prober) threads() error {
	tids, err := p.s.live.Threads()
	if err != nil {
		return err
	}
	if rt := p.s.runtime(); rt != nil && rt.ZTS {
		if err := p.heads(rt); err != nil {
			return err
		}
	}
	return p.p.Watch(tids)
}

// heads tells where the threads keep their frames.
func (p *prober) heads(rt *zend.Runtime) error {
	if err := p.s.live.Refresh(); err != nil {
		return err
	}
	known := make(map[int]*probedThread)
	for _, t := range p.s.phpThreads(rt) {
		th, err := rt.Thread(p.s.live.Mem, t.tls)
		if err != nil {
			continue // it has ended
		}
		c, _ := th.Chain()
		known[t.tid] = &probedThread{th, t.tls}
		if err := p.p.SetHead(t.tid, c.Head); err != nil {
			return err
		}
	}
	for tid := range p.reader.threads {
		if known[tid] == nil {
			if err := p.p.SetHead(tid, 0); err != nil {
				return err
			}
		}
	}
	p.reader.threads = known
	return nil
}

func (p *prober) loop(ctx context.Context, began time.Time) error {
	r := &p.reader
	program := p.program()
	look, tick, shown := began, began, began
	for {
		n, err := p.p.Read(r.take)
		p.seen += uint64(n)
		if err != nil {
			return err
		}
		p.commit()
		if p.state == probing {
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
			if ended, err := p.look(program); err != nil || ended {
				return err
			}
		}
		if since := now.Sub(tick); p.o.SampleEvery > 0 && since >= p.o.SampleEvery {
			tick = now
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
	old := p.po
	p.po = want
	was := p.p
	if err := p.open(); err != nil {
		p.s.note("longer stacks can't be copied: %v", err)
		p.po, p.p = old, was
		p.po.Long, p.po.Stack = want.Long, want.Stack // don't try again
		return
	}
	p.retire(was)
}

// retire closes a session and keeps its counts.
func (p *prober) retire(was *perf.Session) {
	hits := was.Hits()
	if p.hits == nil {
		p.hits = make([]uint64, len(hits))
	}
	for i, n := range hits {
		p.hits[i] += n
	}
	if err := was.Close(); err != nil {
		p.s.note("%v", err)
	}
}

// program tells one program that the process runs from another: exec makes a
// new address space, with other random bytes in it.
func (p *prober) program() string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", p.s.live.PID))
	if err != nil {
		return ""
	}
	exe, _ := p.s.live.Exe()
	return exe + string(b)
}

// look sees whether the process is still there, and its threads.
func (p *prober) look(program string) (ended bool, err error) {
	if !p.s.live.Alive() {
		p.res.Ended = ptrace.EndExited
		return true, nil
	}
	if now := p.program(); now != program && now != "" && program != "" {
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
	if rt.ZTS {
		threads = s.phpThreads(rt)
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

// budget holds the worker's cost to its share: nothing is copied any more while
// it has paid more, and if the traps alone are too much, the breakpoints are
// taken out for a while.
func (p *prober) budget(now time.Time) error {
	if p.o.MaxPause <= 0 || p.o.MaxPause >= 1 {
		return nil
	}
	// Of what the worker has had of processors: on a busy host that is less
	// than the time.
	if now.Sub(p.asked) >= lookEvery {
		p.asked = now
		if cpu, _, err := p.s.live.CPUTime(); err == nil {
			p.cpu = max(p.cpu, cpu-p.cpu0)
		}
	}
	over := p.cost() - time.Duration(p.o.MaxPause*float64(p.cpu))
	switch p.state {
	case probing:
		if over > probeSlack {
			p.state, p.over, p.until = resting, over, now.Add(softRest)
			p.res.Disarmed++
			p.p.Allow(0)
			p.skipped = true
		}
	case resting:
		switch {
		case over <= 0:
			p.state = probing
			p.p.Allow(p.left())
		case now.After(p.until) && over > p.over-softRest/100:
			p.state = out
			p.until = now.Add(max(time.Duration(float64(over)/p.o.MaxPause), minRest))
			return p.p.Pause()
		}
	case out:
		if now.After(p.until) {
			p.state = probing
			return p.p.Resume(p.left())
		}
	}
	return nil
}

// The states of the budget.
const (
	probing = iota
	resting // hits are counted, not copied
	out     // the breakpoints are
)

func (p *prober) close() error {
	p.hits = p.total()
	return p.p.Close()
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
		s.note("%d samples were read of a worker that waited, without stopping it: PHP frames only", r.unstopped)
	}
	if r.truncated > 0 {
		s.note("%d stacks are longer than the %d KiB that are copied", r.truncated, perf.MaxStack>>10)
	}
}
