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
	return &pipeline{
		s: s, limit: firstStack, recalls: make(map[place][]*recipe),
		free: make(chan *target.Snapshot, queued), work: make(chan copied, queued),
	}
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
	p.once.Do(func() { close(p.work) })
	p.done.Wait()
	p.waits.close()
}

func (p *pipeline) into(c *capture.Capture) {
	c.Stacks = p.stacks.stacks
	c.Events = p.told.into(p.events)
	c.Observation.Stops, c.Observation.Samples = p.stops+p.told.len(), p.samples
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

func (s *session) unwind(snap *target.Snapshot) symbolize.Trace { return s.unwound(snap, nil).trace }

// unwound unwinds a thread. What is read of PHP on the way is recorded, if rec
// is not nil.
func (s *session) unwound(snap *target.Snapshot, rec *recorder) reading {
	rd := reading{img: s.image()}
	rd.walk = s.resumers(rd.img.Unwind(snap.Regs, snap), snap, rec.over(snap))
	rd.trace = rd.img.Symbolize(rd.walk)
	return rd
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
	return s.joined(snap, &reading{img: s.image(), trace: *t}, nil, withPHP)
}

// walked are a thread's PHP frames as they were read.
type walked struct {
	th     *zend.Thread
	frames []zend.Frame
}

// joined is join, which leaves PHP's frames as they were read in rd. What it
// reads is recorded, if rec is not nil.
func (s *session) joined(snap *target.Snapshot, rd *reading, rec *recorder, withPHP bool) stack.Stack {
	r := rec.over(snap)
	in := s.natives(rd.img, &rd.trace)
	rt := s.runtime()
	if rt == nil || !withPHP && !rt.ZTS {
		return stack.Join(in)
	}
	th, err := rt.Thread(r, snap.Regs.TLS)
	if err != nil {
		if !errors.Is(err, zend.ErrNoThread) {
			in.PHPErr = err
		}
		return stack.Join(in)
	}
	z := th.Walk(r)
	if len(z.Frames) > 0 {
		s.led(snap.TID, snap.Regs.TLS)
	}
	values := s.look.read(th, snap, z.Frames)
	in.TopCall = func(ed remote.Addr) (bool, bool) { return rt.TopCall(r, ed) }
	s.phpFrames(&in, rt, r, &z)
	for i := range in.PHP {
		in.PHP[i].Values = s.look.shown(values, i)
	}
	st := stack.Join(in)
	s.look.see(&st, values)
	if len(z.Frames) > 0 {
		if name, ok := rt.Frameless(s.live.Mem, r, &z.Frames[0]); ok {
			insertFrameless(&st, name, z.Frames[0].Opcode)
		}
	}
	rd.php = &walked{th, z.Frames}
	return st
}

// natives makes a trace ready to be joined.
func (s *session) natives(img *symbolize.Image, t *symbolize.Trace) stack.Input {
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
	return in
}

// phpFrames adds PHP's frames; r reads the memory that they were read from.
func (s *session) phpFrames(in *stack.Input, rt *zend.Runtime, r remote.Reader, z *zend.Stack) {
	in.PHPErr = z.Err
	in.PHP = make([]stack.PHPFrame, len(z.Frames))
	for i := range z.Frames {
		f := &z.Frames[i]
		in.PHP[i] = stack.PHPFrame{
			Frame: stack.Frame{
				Kind: stack.PHP, Function: f.Function, Class: f.Class, File: f.File, Line: f.Line,
				Internal: f.Internal, Opcode: f.Opcode, Defined: f.Defined, Via: f.Via,
			},
			ExecuteData: f.ExecuteData, Handler: f.Handler, Top: f.Top, LineAt: lineAt(rt, r, f), JITLine: s.jitLine(rt, r, f),
		}
	}
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
func (s *session) jitLine(rt *zend.Runtime, then remote.Reader, f *zend.Frame) func(remote.Addr, bool) (int, string, bool, bool) {
	if f.Internal {
		return nil
	}
	r := remote.ReaderFunc(func(p []byte, at remote.Addr) (int, error) {
		if n, err := then.ReadMemory(p, at); err == nil {
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
