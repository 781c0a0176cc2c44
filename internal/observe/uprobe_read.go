package observe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// A copied sample has registers, stack and PHP's chain of one instant, but the
// names are read from the running process afterwards. A loop makes the same
// few stacks over and over: what a stack depends on is compared with those
// joined before, and joined only when it is new. All samples of one batch are
// recorded after the functions and names they rest on were looked at once more.

const (
	// maxJoined bounds the stacks that are remembered, in frames of some 300
	// bytes. A script that makes more is read at the speed of joining.
	maxJoined = 50_000
	// maxTaken bounds a batch.
	maxTaken = 4096
)

// joined is a stack that was joined, and what must hold for it.
type joined struct {
	stack, bare stack.Stack
	check       *zend.Check // nil for one without PHP frames
	id          int         // of the interned stack, -1 as long as none is
	batch       int         // in which it was last checked
	holds       bool
}

// taken is a sample that is not recorded yet.
type taken struct {
	ev capture.Event
	is *joined
}

// probedThread is a thread of a thread-safe PHP.
type probedThread struct {
	th  *zend.Thread
	tls remote.Addr
}

// probeReader turns samples into events.
type probeReader struct {
	s           *session
	begun       time.Duration
	max         int // stops to take
	stops       int // taken
	known       map[string]*joined
	threads     map[int]*probedThread
	at          []remote.Addr // the breakpoints
	batch       []taken
	batches     int
	frames      int    // of the known stacks
	key         []byte // scratch
	links       []zend.Link
	vainRefresh time.Time

	clocks, gone, truncated, unstopped uint64
	longList, longStack                bool
}

// copiedStack is the copy of a stack, read as memory.
type copiedStack struct {
	at remote.Addr
	b  []byte
}

// ReadMemory implements remote.Reader.
func (c *copiedStack) ReadMemory(p []byte, at remote.Addr) (int, error) {
	off, ok := at.Distance(c.at)
	if !ok || off >= uint64(len(c.b)) {
		return 0, &remote.ReadError{At: at, Want: len(p), Err: remote.ErrNotCopied}
	}
	n := copy(p, c.b[off:])
	if n < len(p) {
		return n, &remote.ReadError{At: at, Want: len(p), Got: n, Err: remote.ErrNotCopied}
	}
	return n, nil
}

// take is called for each sample while it lies in the ring.
func (r *probeReader) take(sm *perf.Sample) {
	ev := capture.Event{At: max(sm.At-r.begun, 0), Kind: capture.Sample, TID: sm.TID}
	// A program that was started by exec has the same file mapped elsewhere.
	if sm.Point >= len(r.at) || sm.Point >= 0 && sm.Regs.PC() != r.at[sm.Point] || len(r.batch) >= maxTaken {
		return
	}
	if sm.Point >= 0 {
		if r.max > 0 && r.stops >= r.max {
			return
		}
		r.stops++
		ev.Kind = capture.Stop
		ev.Symbol = r.s.cap.Observation.Breakpoints[sm.Point].Symbol
		ev.Args = make([]uint64, 0, maxArgs)
		for i := range maxArgs {
			v, ok := sm.Regs.Arg(i)
			if !ok {
				break
			}
			ev.Args = append(ev.Args, v)
		}
	} else {
		r.clocks++
	}
	mem := &copiedStack{sm.Regs.SP(), sm.Stack}
	w := r.unwind(sm, mem)
	if errors.Is(sm.List.Short, perf.ErrLong) {
		r.longList = true
	}
	r.toLinks(sm)
	key := r.keyOf(sm, &w)
	is := r.known[string(key)]
	if is == nil {
		is = r.join(sm, &w, &ev)
		if r.frames += len(is.stack.Frames) + len(is.bare.Frames); r.frames > maxJoined {
			clear(r.known)
			r.frames = 0
		}
		r.known[string(key)] = is
	}
	r.batch = append(r.batch, taken{ev, is})
}

// unwind walks the copied stack, a second time when modules were loaded since.
func (r *probeReader) unwind(sm *perf.Sample, mem *copiedStack) symbolize.Walk {
	if t := r.threads[sm.TID]; t != nil {
		sm.Regs.TLS = t.tls
	}
	img := r.s.image()
	w := img.Unwind(sm.Regs, mem)
	if img.Outdated(&w) && time.Since(r.vainRefresh) > refreshEvery {
		img = r.s.refreshImage()
		if w = img.Unwind(sm.Regs, mem); img.Outdated(&w) {
			r.vainRefresh = time.Now()
		}
	}
	if w.End != symbolize.Truncated || len(w.Frames) == 0 {
		return w
	}
	last := &w.Frames[len(w.Frames)-1]
	if end := mem.at + remote.Addr(len(mem.b)); last.CFA > end-16 {
		if r.longStack = true; len(mem.b) >= perf.MaxStack {
			r.truncated++
		}
	}
	return w
}

func (r *probeReader) toLinks(sm *perf.Sample) {
	r.links = r.links[:0]
	for i := range sm.List.Nodes {
		n := &sm.List.Nodes[i]
		r.links = append(r.links, zend.Link{
			At: remote.Addr(n.At), Func: remote.Addr(n.Desc), Opline: remote.Addr(n.A), This: remote.Addr(n.B),
			CallInfo: n.Flags, Body: n.Body,
		})
	}
}

// keyOf is everything that a joined stack depends on, but for what Check looks at.
func (r *probeReader) keyOf(sm *perf.Sample, w *symbolize.Walk) []byte {
	img := r.s.image()
	k := r.key[:0]
	word := func(v uint64) { k = binary.LittleEndian.AppendUint64(k, v) }
	k = append(k, byte(sm.Point+1))
	for i := range w.Frames {
		f := &w.Frames[i]
		word(uint64(f.PC))
		k = append(k, f.How[0])
		// The interpreter's registers count where the join looks at them: in
		// execute_ex and in what may be a part of it.
		ed, ok := f.Regs.Get(remote.R14)
		in := -1
		for j := range r.links {
			if ok && uint64(r.links[j].At) == ed {
				in = j
				break
			}
		}
		k = append(k, byte(in), byte(in>>8))
		if in < 0 {
			continue
		}
		outer, known := uint64(0), false
		if i+1 < len(w.Frames) {
			outer, known = w.Frames[i+1].Regs.Get(remote.R14)
		}
		if !known || outer != ed || img.CallsHost(w.Frames[i+1].PC) {
			opline, _ := f.Regs.Get(remote.R15)
			word(opline)
		}
	}
	k = append(k, byte(len(w.End)))
	if w.Err != nil {
		k = append(k, w.Err.Error()...)
	}
	word(sm.List.Extra)
	if sm.List.Short != nil {
		k = append(k, sm.List.Short.Error()...)
	}
	rt := r.s.runtime()
	for i := range r.links {
		l := &r.links[i]
		word(uint64(l.At))
		word(uint64(l.Func))
		word(uint64(l.Opline))
		word(uint64(l.CallInfo))
		if l.Func == 0 {
			word(uint64(l.This))
		}
		if l.Body != nil {
			id := rt.Identity(l.Body)
			k = append(k, id[:]...)
		}
	}
	r.key = k
	return k
}

// join makes a stack of a sample.
func (r *probeReader) join(sm *perf.Sample, w *symbolize.Walk, ev *capture.Event) *joined {
	s := r.s
	img := s.image()
	t := img.Symbolize(*w)
	out := &joined{id: -1, batch: -1}
	in := s.natives(img, &t)
	in.TopCall = nil
	bare := in
	bare.PHPErr = zend.ErrGone
	rt := s.runtime()
	th, why := r.thread(rt, sm.TID)
	if th == nil || !runsPHP(&t) && sm.TID != s.live.PID && !rt.ZTS {
		in.PHPErr = why
		out.stack = stack.Join(in)
	} else {
		c := th.Copied(r.links, remote.Addr(sm.List.Extra), s.live.Mem)
		z := c.Walk()
		if sm.List.Short != nil {
			z.Err = sm.List.Short
			if errors.Is(z.Err, perf.ErrLong) {
				z.Err = fmt.Errorf("more than %d PHP frames", len(z.Frames))
			}
		}
		s.phpFrames(&in, rt, c, &z)
		out.stack = stack.Join(in)
		out.check = c.Check(r.links)
		if len(z.Frames) > 0 {
			s.led(sm.TID, sm.Regs.TLS)
		}
	}
	out.bare = stack.Join(bare)
	if ev.Kind == capture.Stop {
		for _, st := range []*stack.Stack{&out.stack, &out.bare} {
			if len(st.Frames) > 0 {
				st.Frames[0].Args = arguments(ev.Symbol, ev.Args)
			}
		}
	}
	return out
}

// thread finds the thread's share of PHP, nil when PHP does not run in it.
func (r *probeReader) thread(rt *zend.Runtime, tid int) (*zend.Thread, error) {
	switch {
	case rt == nil || rt.Layout.PHP5:
		return nil, nil
	case !rt.ZTS:
		return rt.Any(), nil
	}
	if t := r.threads[tid]; t != nil {
		return t.th, nil
	}
	return nil, nil
}

// commit records the batch.
func (r *probeReader) commit() {
	p := r.s.pipe
	r.batches++
	for i := range r.batch {
		b := &r.batch[i]
		if b.is.batch != r.batches {
			b.is.batch = r.batches
			b.is.holds = b.is.check == nil || b.is.check.Holds(liveBatch{r.s.live.Mem}) == nil
			if b.is.holds && b.is.id < 0 {
				b.is.id = p.stacks.add(b.is.stack)
			}
		}
		if b.is.holds {
			b.ev.Stack = b.is.id
		} else {
			r.gone++
			b.ev.Stack = p.stacks.add(b.is.bare)
			r.forget(b.is)
		}
		if b.ev.Kind == capture.Stop {
			p.stops++
		} else {
			p.samples++
		}
		p.events = append(p.events, b.ev)
		b.is = nil
	}
	r.batch = r.batch[:0]
}

// forget drops a stack whose functions have gone.
func (r *probeReader) forget(is *joined) {
	for k, v := range r.known {
		if v == is {
			delete(r.known, k)
			return
		}
	}
}

// liveBatch reads many places of the process with one system call.
type liveBatch struct{ m *proc.Memory }

// ReadAll implements zend.BatchReader.
func (l liveBatch) ReadAll(regions []remote.Region, into []byte) bool {
	rs := make([]proc.Region, len(regions))
	for i, g := range regions {
		rs[i] = proc.Region{At: g.At, Buf: into[:g.Len:g.Len]}
		into = into[g.Len:]
	}
	l.m.ReadRegions(rs)
	for i := range rs {
		if rs[i].Got != len(rs[i].Buf) {
			return false
		}
	}
	return true
}
