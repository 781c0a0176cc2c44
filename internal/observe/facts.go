package observe

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// factTries bounds how often a fact is read that changes meanwhile.
const factTries = 20

// facts collects the evidence beside the stacks. What can't be collected is
// left out: rules then know that it is missing.
type facts struct {
	cpu, queued time.Duration
	known       bool
	read        uint64 // bytes
	readKnown   bool
	state       string     // before it was stopped
	blocked     *proc.Call // the main thread's system call then; nil for none
	// frozen says that all threads were seen at one instant, and in is the system
	// call that the first of PHP's was in; nil for none.
	frozen bool
	in     *proc.Call
	inTID  int    // the thread that was in it
	wchan  string // where in the kernel the main thread waited before it was stopped

	began  time.Time
	last   vitals          // when it was last sampled
	limits []proc.CPULimit // before; nil when nobody asked
}

// begin notes the CPU time that was used before.
func (f *facts) begin(l *target.Live) {
	var err error
	f.began = time.Now()
	f.cpu, f.queued, err = l.CPUTime()
	f.known = err == nil
	f.read, err = l.BytesRead()
	f.readKnown = err == nil
	f.state, _ = ownState(l)
	if c, err := l.Blocked(l.PID); err == nil {
		f.blocked = &c
	}
	f.wchan = l.Wchan(l.PID)
}

// end fills in the facts. ran is for how long the process could run; several says that
// threads were seen more than once, so that what lasts could show.
func (f *facts) end(s *session, ran time.Duration, several bool) {
	l, c, rt, th := s.live, &s.cap, s.runtime(), s.thread()
	m := make(map[string]any)
	v, err := f.now(l, ran)
	if err == nil && f.known && v.ran > 0 {
		most := 100 * float64(max(1, v.threads))
		m["proc.cpu_pct"] = min(100*float64(v.cpu-f.cpu)/float64(v.ran), most)
		// On a busy host a loop gets less than a whole processor.
		m["proc.runnable_pct"] = min(100*float64(v.cpu-f.cpu+v.queued-f.queued)/float64(v.ran), most)
	}
	if by := f.starved(l, m); by != "" {
		m["proc.starved_by"] = by
		s.note("the worker wanted a processor %.0f %% of the time and had one %.0f %%: %s", m["proc.runnable_pct"], m["proc.cpu_pct"], by)
	}
	if n, err := l.BytesRead(); err == nil && f.readKnown && ran > 0 && n >= f.read {
		m["proc.read_bytes_per_s"] = float64(n-f.read) / ran.Seconds()
	}
	// By now only somebody else can be the tracer.
	if tracer, err := l.Tracer(); err == nil {
		m["proc.tracer_pid"] = int64(tracer)
	}
	if err == nil {
		st := v.state
		if st == "R" && f.in != nil {
			st = "S" // it was woken to be looked at, in the middle of a system call
		}
		if st != "" {
			m["proc.state"] = st
		}
		m["proc.threads"] = int64(v.threads)
		m["proc.age_s"] = v.age.Seconds()
	}
	if rt != nil {
		m["php.version"], m["php.sapi"] = rt.Version, rt.SAPI
	}
	if t := &s.pipe.tables; t.found {
		m["hash.keys"], m["hash.keys_per_slot"] = int64(t.worst.Keys), t.worst.PerSlot
	}
	if s.pipe.same.called {
		m["stack.arg_bytes"] = int64(s.pipe.same.longest)
	}
	if s.pipe.same.seen && several && !rt.Layout.PHP5 {
		m["stack.same_call_s"] = s.pipe.same.most.Seconds()
	}
	s.pipe.waits.into(m, several)
	s.holderFacts(m)
	if n, err := l.RSS(); err == nil {
		m["proc.rss"] = int64(min(n, math.MaxInt64))
	}
	if fn := f.waitsIn(l, lastWithPHP(c, l.PID)); fn != "" {
		m["proc.wchan"] = fn
		// A moment ago it may have been on its way back from the last stop.
		if st, err := ownState(l); err == nil && st != "" && m["proc.state"] == "R" {
			m["proc.state"] = st
		}
	}
	if text := s.pipe.waits.note(); text != "" {
		s.note("%s", text)
	}
	if th != nil {
		s.engineFacts(m, th)
		if op := usualOpcode(c); op != "" {
			m["php.opcode"] = op
		}
		if q := c.Target.Request; q != nil && q.AgeMS != nil {
			m["php.request_age_s"] = float64(*q.AgeMS) / 1000
		}
	}
	c.Facts = m
}

// lastWithPHP is the thread that was seen last with PHP code, the main one when none was.
func lastWithPHP(c *capture.Capture, main int) int {
	for i := len(c.Events) - 1; i >= 0; i-- {
		if slices.ContainsFunc(c.Stacks[c.Events[i].Stack].Frames, func(f stack.Frame) bool { return f.Kind == stack.PHP }) {
			return c.Events[i].TID
		}
	}
	return main
}

// waitsIn is where in the kernel PHP's thread waits, "" when it does not. One that
// was stopped in the middle of a call is on its way back to it for a moment, and of
// a sleep that goes on the kernel no longer knows it: what it said before holds
// as long as the call is the same.
func (f *facts) waitsIn(l *target.Live, tid int) string {
	if f.in != nil {
		tid = f.inTID
	}
	for range factTries {
		if fn := l.Wchan(tid); fn != "" {
			return fn
		}
		c, err := l.Blocked(tid)
		switch {
		case tid == l.PID && f.wchan != "" && (f.in != nil || err == nil && f.same(&c)):
			return f.wchan
		case err == nil:
			return l.Wchan(tid) // it may have been on its way just now
		case f.in == nil:
			return ""
		}
		time.Sleep(time.Millisecond)
	}
	return ""
}

// same reports whether a call is the one that the main thread was in before.
func (f *facts) same(c *proc.Call) bool {
	return f.blocked != nil && f.blocked.Args == c.Args && f.blocked.PC == c.PC
}

// engineFacts asks the engine about itself. It need not stand still for that.
func (s *session) engineFacts(m map[string]any, th *zend.Thread) {
	r := s.mem
	if mem, err := th.Memory(r); err == nil {
		m["php.memory_usage"] = int64(mem.Reserved)
		if mem.Limit < 1<<62 { // memory_limit=-1 is a limit nobody reaches
			m["php.memory_limit"] = int64(mem.Limit)
		}
	}
	if g, err := th.GC(r); err == nil {
		m["php.gc_runs"], m["php.gc_collected"] = int64(g.Runs), int64(g.Collected)
		m["php.gc_enabled"], m["php.gc_active"], m["php.gc_protected"] = g.Enabled, g.Active, g.Protected
		if g.Threshold > 0 { // counted since 7.3
			m["php.gc_roots"], m["php.gc_threshold"] = int64(g.Roots), int64(g.Threshold)
		}
		if g.Time > 0 {
			m["php.gc_time_s"] = g.Time.Seconds()
		}
	}
	// A buffer that grows all the time is seen half grown now and then.
	for range factTries {
		if o, err := th.Output(r); err == nil {
			m["php.output_buffer_level"] = int64(o.Level)
			m["php.output_buffer_bytes"] = int64(o.Used)
			break
		}
	}
	if a, err := th.Allocator(r); err == nil {
		m["php.allocator"] = allocator(a, s.nameOf)
	}
	d, err := th.Depth(r)
	if err == nil {
		m["php.frames"], m["php.frames_exact"] = int64(d.Frames), d.Exact
		if d.Frames > zend.MaxFrames && len(d.Outer) > 0 {
			s.note("%s", outermostNote(&d))
		}
	}
	var outermost *zend.Frame
	if n := len(d.Outer); n > 0 {
		outermost = &d.Outer[n-1]
	}
	if p := th.Phase(r, outermost); p != "" {
		m["php.phase"] = string(p)
		if in := mainPlace(&s.cap, p); in != "" {
			m["php.place"] = in
		}
	}
}

// allocator is "zend_mm", or "custom:tracked_malloc" where there is somebody
// to name.
func allocator(a zend.Allocator, nameOf func(remote.Addr) string) string {
	s := string(a.Kind)
	switch {
	case a.Handlers != "":
		s += ":" + a.Handlers
	case a.By != 0 && a.Kind != zend.Malloc:
		if name := nameOf(a.By); name != "" {
			s += ":" + name
		}
	}
	return s
}

// nameOf names a function, or says where it is: "module+0x1234".
func (s *session) nameOf(at remote.Addr) string {
	t := s.image().Symbolize(symbolize.Walk{Frames: []symbolize.PhysicalFrame{{PC: at, Exact: true}}})
	if len(t.Frames) == 0 {
		return ""
	}
	f := &t.Frames[len(t.Frames)-1]
	switch {
	case f.Function != "":
		return f.Function
	case f.Module != "":
		return fmt.Sprintf("%s+%#x", f.Module, f.Offset)
	}
	return ""
}

// usualOpcode is what the innermost user frame was doing most of the times that
// it was seen.
func usualOpcode(c *capture.Capture) string {
	ops := make([]string, len(c.Stacks))
	for i := range c.Stacks {
		for j := range c.Stacks[i].Frames {
			if f := &c.Stacks[i].Frames[j]; f.Kind == stack.PHP && !f.Internal {
				ops[i] = f.Opcode
				break
			}
		}
	}
	count := make(map[string]int)
	usual := ""
	for i := range c.Events {
		op := ops[c.Events[i].Stack]
		if op == "" {
			continue
		}
		// Of equals, the later one.
		if count[op]++; count[op] >= count[usual] {
			usual = op
		}
	}
	return usual
}

func threads(l *target.Live) int {
	tids, err := l.Threads()
	if err != nil {
		return 0
	}
	return len(tids)
}
