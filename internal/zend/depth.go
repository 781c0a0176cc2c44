package zend

import (
	"errors"
	"fmt"
	"slices"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxDepth bounds how many execute_data are counted. A memory_limit of
	// 128 MiB ends most recursions at about a million.
	maxDepth = 1 << 20
	// depthTries bounds how often a stack that changes meanwhile is counted.
	depthTries = 4
	// outermost is how many of the outermost frames are read.
	outermost = 8
	// readAhead is what is read of a deep VM stack at once, in bytes, readFirst
	// what is read of any, and keepAhead how many such blocks are kept: a recursion's frames lie side
	// by side.
	readAhead, readFirst, keepAhead = 64 << 10, 4 << 10, 8
)

// Depth is how many PHP frames a thread has, also beyond MaxFrames.
type Depth struct {
	Frames int
	// Exact says that the stack held still while it was counted. Else it has
	// at least so many: those of its outermost frames that stayed.
	Exact bool
	// Outer are the outermost frames, at most 8, the outermost last.
	Outer []Frame
}

// Depth counts the frames of a thread that need not stand still: a stack that
// is the same when it is counted once more was so all the time.
func (th *Thread) Depth(r remote.Reader) (Depth, error) {
	var last *tally
	best := Depth{}
	var ended error
	for range depthTries {
		t, err := th.count(newAhead(r))
		if err != nil && !errors.Is(err, ErrDepth) {
			// Torn, perhaps; or really broken.
			last, ended = nil, err
			continue
		}
		if last != nil {
			d := t.common(last)
			if d.Frames >= best.Frames || d.Exact {
				best, ended = d, nil
				best.Outer = th.outer(r, t, min(outermost, d.Frames))
			}
			if d.Exact || d.Frames > 0 && err != nil {
				return best, nil
			}
		}
		last = t
	}
	if best.Frames == 0 && ended != nil {
		return Depth{}, fmt.Errorf("counting PHP frames: %w", ended)
	}
	return best, nil
}

// tally is one count of a stack.
type tally struct {
	whole  bool     // it ended at the stack's outermost frame
	frames []uint64 // what identifies each, innermost first
	tail   []link   // the outermost ones
	tail5  []Frame  // the same of PHP 5
}

// common is what two counts agree on.
func (t *tally) common(u *tally) Depth {
	if !t.whole || !u.whole {
		// What was counted from the inside stood still if it begins alike.
		n := 0
		for n < min(len(t.frames), len(u.frames)) && t.frames[n] == u.frames[n] {
			n++
		}
		return Depth{Frames: n}
	}
	n := 0
	for n < min(len(t.frames), len(u.frames)) && t.frames[len(t.frames)-1-n] == u.frames[len(u.frames)-1-n] {
		n++
	}
	return Depth{Frames: n, Exact: n == len(t.frames) && n == len(u.frames)}
}

// count goes through the whole chain.
func (th *Thread) count(r remote.Reader) (*tally, error) {
	if th.rt.Layout.PHP5 {
		return th.count5(r)
	}
	l := th.rt.Layout
	t := &tally{}
	hidden := make(map[remote.Addr]bool)
	last := make([]byte, l.EDSize)
	err := th.chainUpTo(r, maxDepth, func(k link) (int, error) {
		fn := k.word(l.EDFunc)
		copy(last, k.ed)
		none, known := hidden[fn]
		if !known {
			if len(hidden) >= MaxFrames { // a recursion has few functions
				return 0, ErrDepth
			}
			none = th.invisible(r, fn)
			hidden[fn] = none
		}
		if none {
			return 0, nil
		}
		t.add(k.at, fn)
		if len(t.tail) == 2*outermost {
			t.tail = append(t.tail[:0], t.tail[outermost:]...)
		}
		t.tail = append(t.tail, link{at: k.at, ed: slices.Clone(k.ed), suspended: k.suspended})
		return 0, nil
	})
	if err == nil && len(t.frames) > 0 {
		fn := link{ed: last}.word(l.EDFunc)
		flags, rerr := remote.Uint32(r, fn+remote.Addr(l.FuncFlags))
		if rerr != nil || !l.root(last, flags) {
			err = errChanged
		}
	}
	t.whole = err == nil
	return t, err
}

func (t *tally) add(at, fn remote.Addr) {
	t.frames = append(t.frames, uint64(at)*0x9e3779b97f4a7c15^uint64(fn))
}

// count5 counts PHP 5's frames, of which an execute_data has up to two.
func (th *Thread) count5(r remote.Reader) (*tally, error) {
	t := &tally{}
	known := make(functions)
	inner := remote.Addr(0)
	err := th.chain5UpTo(r, maxDepth, func(k link) (int, error) {
		n := len(t.tail5)
		err := th.frames5(r, k, known, inner, &t.tail5)
		inner = k.word(th.rt.Layout.EDOpArray)
		for i := range t.tail5[n:] {
			t.add(k.at, t.tail5[n+i].Func)
		}
		if len(t.tail5) >= 4*outermost {
			t.tail5 = append(t.tail5[:0], t.tail5[len(t.tail5)-outermost:]...)
		}
		return 0, err
	})
	t.whole = err == nil
	return t, err
}

// invisible reports whether backtraces leave a function out: the bottom of a
// fiber's stack has one without a name.
func (th *Thread) invisible(r remote.Reader, fn remote.Addr) bool {
	l := th.rt.Layout
	kind, err1 := remote.Uint8(r, fn+remote.Addr(l.FuncType))
	name, err2 := remote.Pointer(r, fn+remote.Addr(l.FuncName))
	return err1 == nil && err2 == nil && kind == l.TypeInternal && name == 0
}

// outer reads the n frames at the outer end of a count.
func (th *Thread) outer(r remote.Reader, t *tally, n int) []Frame {
	if !t.whole {
		return nil
	}
	if th.rt.Layout.PHP5 {
		out := t.tail5[max(0, len(t.tail5)-n):]
		th.rt.nameIncludes(r, out)
		return out
	}
	known := make(functions)
	var out []Frame
	for _, k := range t.tail[max(0, len(t.tail)-n):] {
		f, ok, err := th.frame(r, k, known)
		if err != nil {
			return nil
		}
		if ok {
			out = append(out, f)
		}
	}
	th.rt.nameIncludes(r, out)
	return out
}

// ahead is a reader that reads more than it is asked for and keeps some of it.
// It shows one state of memory only as long as nothing is dropped.
type ahead struct {
	r      remote.Reader
	size   int // of a block: readFirst, then readAhead
	blocks map[remote.Addr][]byte
	order  []remote.Addr
}

func newAhead(r remote.Reader) *ahead {
	return &ahead{r: r, size: readFirst, blocks: make(map[remote.Addr][]byte, keepAhead)}
}

// ReadMemory implements remote.Reader.
func (a *ahead) ReadMemory(p []byte, at remote.Addr) (int, error) {
	if len(a.order) == keepAhead && a.size < readAhead {
		a.size, a.order = readAhead, nil
		clear(a.blocks)
	}
	base := at &^ remote.Addr(a.size-1)
	off := int(at - base)
	if off+len(p) > a.size {
		return a.r.ReadMemory(p, at)
	}
	b, ok := a.blocks[base]
	if !ok {
		if len(a.order) == keepAhead {
			b = a.blocks[a.order[0]][:0]
			delete(a.blocks, a.order[0])
			a.order = append(a.order[:0], a.order[1:]...)
		}
		if cap(b) < a.size {
			b = make([]byte, a.size)
		}
		b = b[:a.size]
		n, _ := a.r.ReadMemory(b, base)
		b = b[:n]
		a.blocks[base] = b
		a.order = append(a.order, base)
	}
	if off+len(p) > len(b) {
		// The block ends early, or begins with what can't be read.
		return a.r.ReadMemory(p, at)
	}
	return copy(p, b[off:]), nil
}
