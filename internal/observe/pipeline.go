package observe

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// queued bounds the stops that were copied but not yet read.
	queued = 256
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
	snap *target.Snapshot
	// Of a sample: how often the thread had waited, when that is known.
	switches uint64
	counted  bool
}

// pipeline takes stops on the tracer's thread and reads them on its own.
type pipeline struct {
	s        *session
	free     chan *target.Snapshot
	work     chan copied
	done     sync.WaitGroup
	once     sync.Once
	started  sync.Once
	progress func(stops, samples int)

	limit   int // of a stack copy; only the tracer's thread writes it
	limitMu sync.Mutex
	dropped int

	stacks         interner
	events         []capture.Event
	stops, samples int
	lastRefresh    time.Time
	same           sameCall
	waits          waitTracker
	tables         tables
}

func newPipeline(s *session) *pipeline {
	p := &pipeline{s: s, limit: firstStack, free: make(chan *target.Snapshot, queued), work: make(chan copied, queued)}
	return p
}

// fill makes the snapshots, each as large as the first turned out to be: a
// stop is no time to ask for memory.
func (p *pipeline) fill(first *target.Snapshot, size int) {
	p.free <- first
	for range queued - 1 {
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
	ev := capture.Event{At: st.At, Kind: capture.Sample, TID: st.TID}
	if st.Kind == ptrace.KindBreakpoint {
		ev.Kind = capture.Stop
		ev.Symbol = p.s.cap.Observation.Breakpoints[st.Breakpoint].Symbol
		for i := range maxArgs {
			v, ok := st.Regs.Arg(i)
			if !ok {
				break
			}
			ev.Args = append(ev.Args, v)
		}
	}
	c := copied{ev: ev, snap: snap}
	if ev.Kind == capture.Sample {
		c.switches, c.counted = p.waits.count(p.s.live.Process, st.TID)
	}
	p.work <- c
	return ptrace.Continue
}

func (p *pipeline) run() {
	defer p.done.Done()
	last := time.Now()
	for c := range p.work {
		p.read(c)
		p.free <- c.snap
		if now := time.Now(); p.progress != nil && now.Sub(last) > 50*time.Millisecond {
			last = now
			p.progress(p.stops, p.samples)
		}
	}
}

// read turns a copied stop into an event.
func (p *pipeline) read(c copied) {
	t := p.s.unwind(c.snap)
	if t.End == symbolize.Truncated {
		t = p.retry(c.snap, t)
	}
	withPHP := runsPHP(&t) || c.ev.TID == p.s.live.PID
	st, z := p.s.joined(c.snap, &t, withPHP)
	if z != nil && c.ev.Kind == capture.Sample {
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
	p.add(c.ev, st)
}

// retry gives a truncated walk another chance when modules were loaded since,
// and has more of the stack copied from the next stop on.
func (p *pipeline) retry(snap *target.Snapshot, t symbolize.Trace) symbolize.Trace {
	if len(t.Frames) == 0 {
		return t
	}
	last := t.Frames[len(t.Frames)-1].PC
	if p.s.image().Mappings().Find(last) == nil && time.Since(p.lastRefresh) > refreshEvery {
		p.lastRefresh = time.Now()
		p.s.refreshImage()
		t = p.s.unwind(snap)
	}
	if t.End == symbolize.Truncated {
		p.limitMu.Lock()
		p.limit = min(2*p.limit, maxStack)
		p.limitMu.Unlock()
	}
	return t
}

// add records an event.
func (p *pipeline) add(ev capture.Event, st stack.Stack) {
	if ev.Kind == capture.Stop {
		p.stops++
		if len(st.Frames) > 0 {
			if f := &st.Frames[0]; f.Unresolved() {
				f.Function = ev.Symbol // it has just made that system call
			}
			st.Frames[0].Args = arguments(ev.Symbol, ev.Args)
		}
	} else {
		p.samples++
	}
	ev.Stack = p.stacks.add(st)
	p.events = append(p.events, ev)
}

// close waits until everything that was copied has been read.
func (p *pipeline) close() {
	p.once.Do(func() { close(p.work) })
	p.done.Wait()
	p.waits.close()
}

func (p *pipeline) into(c *capture.Capture) {
	c.Stacks = p.stacks.stacks
	c.Events = p.events
	c.Observation.Stops, c.Observation.Samples = p.stops, p.samples
	p.s.look.into(c)
}

// copy records what will be read of a stopped thread.
func (s *session) copy(snap *target.Snapshot, limit int) {
	snap.CopyStack(s.image().Mappings(), limit)
	if rt := s.runtime(); rt != nil {
		if th, err := rt.Thread(snap, snap.Regs.TLS); err == nil {
			th.Prefetch(snap)
			s.copyFibers(snap, th, limit)
			if s.look.any {
				th.PrefetchValues(snap, s.look.want)
			}
		}
	}
	snap.Freeze()
}

func (s *session) unwind(snap *target.Snapshot) symbolize.Trace {
	img := s.image()
	return img.Symbolize(s.resumers(img.Unwind(snap.Regs, snap), snap))
}

// runsPHP reports whether a thread is inside the interpreter.
func runsPHP(t *symbolize.Trace) bool {
	for i := range t.Frames {
		if f := &t.Frames[i]; f.Function == stack.Executor && !f.Inlined {
			return true
		}
	}
	return false
}

// thread returns the thread that was last seen running PHP, nil when there is
// none.
func (s *session) thread() *zend.Thread {
	rt := s.runtime()
	if rt == nil {
		return nil
	}
	s.leadMu.Lock()
	lead := s.lead
	s.leadMu.Unlock()
	th, err := rt.Thread(s.live.Mem, lead)
	if err != nil {
		return nil
	}
	return th
}

// join merges a thread's native frames with PHP's, which belong to it only if
// withPHP says so, or, where every thread has its own, if it has any.
func (s *session) join(snap *target.Snapshot, t *symbolize.Trace, withPHP bool) stack.Stack {
	st, _ := s.joined(snap, t, withPHP)
	return st
}

// walked are a thread's PHP frames as they were read.
type walked struct {
	th     *zend.Thread
	frames []zend.Frame
}

// joined is join, with PHP's frames as they were read, nil when there are none.
func (s *session) joined(snap *target.Snapshot, t *symbolize.Trace, withPHP bool) (stack.Stack, *walked) {
	img := s.image()
	in := stack.Input{NativeEnd: stack.End(t.End), NativeErr: t.Err, Native: make([]stack.NativeFrame, len(t.Frames))}
	for i := range t.Frames {
		f := &t.Frames[i]
		in.Native[i] = stack.NativeFrame{
			Frame: stack.Frame{
				Kind: stack.Native, Function: f.Function, Raw: f.Raw, Module: f.Module, File: f.File, Line: f.Line,
				PC: f.PC, Offset: f.Offset, Inlined: f.Inlined, How: string(f.How),
			},
			Entry: f.Entry, Regs: f.Regs,
		}
		if f.Function == "" && f.Module == s.php.Name && i+1 < len(t.Frames) {
			in.Native[i].Executes = img.CallsHost(t.Frames[i+1].PC)
		}
	}
	rt := s.runtime()
	if rt == nil || !withPHP && !rt.ZTS {
		return stack.Join(in), nil
	}
	th, err := rt.Thread(snap, snap.Regs.TLS)
	if err != nil {
		if !errors.Is(err, zend.ErrNoThread) {
			in.PHPErr = err
		}
		return stack.Join(in), nil
	}
	z := th.Walk(snap)
	if len(z.Frames) > 0 {
		s.led(snap.TID, snap.Regs.TLS)
	}
	values := s.look.read(th, snap, z.Frames)
	in.PHPErr = z.Err
	in.TopCall = func(ed remote.Addr) (bool, bool) { return rt.TopCall(snap, ed) }
	in.PHP = make([]stack.PHPFrame, len(z.Frames))
	for i := range z.Frames {
		f := &z.Frames[i]
		in.PHP[i] = stack.PHPFrame{
			Frame: stack.Frame{
				Kind: stack.PHP, Function: f.Function, Class: f.Class, File: f.File, Line: f.Line,
				Internal: f.Internal, Opcode: f.Opcode, Defined: f.Defined, Via: f.Via,
				Values: s.look.shown(values, i),
			},
			ExecuteData: f.ExecuteData, Handler: f.Handler, Top: f.Top, LineAt: lineAt(rt, snap, f), JITLine: s.jitLine(rt, snap, f),
		}
	}
	st := stack.Join(in)
	s.look.see(&st, values)
	if len(z.Frames) > 0 {
		if name, ok := rt.Frameless(s.live.Mem, snap, &z.Frames[0]); ok {
			insertFrameless(&st, name, z.Frames[0].Opcode)
		}
	}
	return st, &walked{th, z.Frames}
}

// insertFrameless shows the internal function that the innermost PHP code is in,
// though PHP made no frame for it: where it was not called, it would have one.
func insertFrameless(st *stack.Stack, name, opcode string) {
	for i := range st.Frames {
		f := &st.Frames[i]
		if f.Kind != stack.PHP {
			continue
		}
		// Directly in the interpreter it is not called yet, or has returned.
		if f.Internal || f.Opcode != opcode || i < 2 {
			return
		}
		st.Frames = slices.Insert(st.Frames, i, stack.Frame{Kind: stack.PHP, Function: name, Internal: true})
		return
	}
}

func lineAt(rt *zend.Runtime, r remote.Reader, f *zend.Frame) func(remote.Addr) (int, string, bool) {
	if f.Internal {
		return nil
	}
	return func(opline remote.Addr) (int, string, bool) { return rt.LineAt(r, f, opline) }
}

// jitLine reads lines off JIT code, which is read from the running process: it
// does not change once it is written. Oplines are in the snapshot.
func (s *session) jitLine(rt *zend.Runtime, snap *target.Snapshot, f *zend.Frame) func(remote.Addr, bool) (int, string, bool, bool) {
	if f.Internal {
		return nil
	}
	r := remote.ReaderFunc(func(p []byte, at remote.Addr) (int, error) {
		if n, err := snap.ReadMemory(p, at); err == nil {
			return n, nil
		}
		return s.live.Mem.ReadMemory(p, at)
	})
	return func(pc remote.Addr, call bool) (int, string, bool, bool) { return rt.JITLine(r, f, pc, call) }
}

// parameters are the arguments of the functions that are usually stopped at
// (mmap(2), mremap(2)).
var parameters = map[string][]string{
	"mmap":   {"addr", "len", "prot", "flags", "fd", "offset"},
	"mremap": {"addr", "old_len", "new_len", "flags"},
}

func arguments(symbol string, args []uint64) []stack.Arg {
	var out []stack.Arg
	for i, name := range parameters[symbol] {
		if i >= len(args) {
			break
		}
		v := fmt.Sprintf("%d", args[i])
		switch name {
		case "addr":
			v = remote.Addr(args[i]).String()
		case "fd", "prot", "flags":
			v = fmt.Sprintf("%d", int32(args[i]))
		}
		out = append(out, stack.Arg{Name: name, Value: v})
	}
	return out
}

// interner keeps one copy of equal stacks. Two stacks are equal when a person
// reading them sees no difference, wherever inside a line the program was.
type interner struct {
	seed   maphash.Seed
	byHash map[uint64][]int
	stacks []stack.Stack
}

func (in *interner) add(st stack.Stack) int {
	if in.byHash == nil {
		in.seed = maphash.MakeSeed()
		in.byHash = make(map[uint64][]int)
	}
	h := in.hash(&st)
	for _, i := range in.byHash[h] {
		if same(&in.stacks[i], &st) {
			// Values differ from stop to stop; the last ones say what it came to.
			for j := range st.Frames {
				in.stacks[i].Frames[j].Values = st.Frames[j].Values
			}
			return i
		}
	}
	in.stacks = append(in.stacks, st)
	in.byHash[h] = append(in.byHash[h], len(in.stacks)-1)
	return len(in.stacks) - 1
}

func (in *interner) hash(st *stack.Stack) uint64 {
	var h maphash.Hash
	h.SetSeed(in.seed)
	for i := range st.Frames {
		f := &st.Frames[i]
		_, _ = h.WriteString(f.Function)
		_, _ = h.WriteString(f.File)
		_ = h.WriteByte(byte(f.Line))
		_ = h.WriteByte(byte(f.Line >> 8))
	}
	return h.Sum64()
}

func same(a, b *stack.Stack) bool {
	if len(a.Frames) != len(b.Frames) || a.End != b.End || a.Error != b.Error {
		return false
	}
	for i := range a.Frames {
		x, y := &a.Frames[i], &b.Frames[i]
		if x.Kind != y.Kind || x.Function != y.Function || x.Class != y.Class || x.File != y.File || x.Line != y.Line ||
			x.Module != y.Module || x.Inlined != y.Inlined || x.Opcode != y.Opcode {
			return false
		}
		if x.Unresolved() && x.Offset != y.Offset && i > 0 {
			return false
		}
	}
	return true
}
