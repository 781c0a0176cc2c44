package zend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// A thread's chain of execute_data can be copied by somebody else, all of it
// at one instant, while the thread runs on: the kernel at a breakpoint. Names,
// paths and oplines are read from the running process later. They stay where
// they are as long as the function does, which is looked at again afterwards.

// ErrGone says that a function was no more when its name was read.
var ErrGone = errors.New("PHP's functions had gone when their names were read")

// ErrDelegating says that a stack has generators in it that delegate to each
// other, whose links are not copied.
var ErrDelegating = errors.New("a generator delegates to another")

// Chain says what has to be copied of a thread, in bytes.
type Chain struct {
	Head   remote.Addr // of the pointer to the innermost execute_data
	Before int64       // from there to EG(opline_before_exception)
	// Of an execute_data, and of the function that it points to.
	Size, FuncSize                     uint64
	Prev, Func, Opline, This, CallInfo uint64
}

// Chain describes the thread's chain; ok is false for PHP 5, which keeps more
// than that.
func (th *Thread) Chain() (c Chain, ok bool) {
	l := th.rt.Layout
	head := l.EGCurrent
	before := th.exceptionOp() - l.EGExceptionOp + l.EGBeforeException
	return Chain{
		Head: th.eg + remote.Addr(head), Before: int64(before) - int64(head),
		Size: l.EDSize, FuncSize: l.FuncSize,
		Prev: l.EDPrev, Func: l.EDFunc, Opline: l.EDOpline, This: l.EDThis, CallInfo: l.EDCallInfo,
	}, !l.PHP5
}

// Link is one execute_data that was copied. Body is its function, nil where
// that is the one of the link before.
type Link struct {
	At, Func, Opline, This remote.Addr
	CallInfo               uint32
	Body                   []byte
}

// Copied is a chain that was copied. It implements remote.Reader: what was
// copied is read from the copy, the rest from the process, and noted.
type Copied struct {
	rt     *Runtime
	th     *Thread
	live   remote.Reader
	copies map[remote.Addr][]byte
	notes  []span
	err    error
}

// Copied takes over what was copied of the thread; it keeps none of it.
func (th *Thread) Copied(links []Link, before remote.Addr, live remote.Reader) *Copied {
	rt, l := th.rt, th.rt.Layout
	c := &Copied{rt: rt, th: th, live: live, copies: make(map[remote.Addr][]byte, 2*len(links)+2)}
	chain, _ := th.Chain()
	at := chain.Head
	c.put(at, binary.LittleEndian.AppendUint64(nil, 0))
	if b, ok := at.Offset(chain.Before); ok {
		c.put(b, binary.LittleEndian.AppendUint64(nil, uint64(before)))
	}
	prev := c.copies[at]
	for i := range links {
		k := &links[i]
		binary.LittleEndian.PutUint64(prev, uint64(k.At))
		ed := make([]byte, l.EDSize)
		binary.LittleEndian.PutUint64(ed[l.EDFunc:], uint64(k.Func))
		binary.LittleEndian.PutUint64(ed[l.EDOpline:], uint64(k.Opline))
		binary.LittleEndian.PutUint64(ed[l.EDThis:], uint64(k.This))
		binary.LittleEndian.PutUint32(ed[l.EDCallInfo:], k.CallInfo)
		c.put(k.At, ed)
		prev = ed[l.EDPrev : l.EDPrev+8]
		if k.Body != nil {
			c.put(k.Func, bytes.Clone(k.Body))
		}
		if own, ok := k.This.Add(l.GenFake); k.Func == 0 && ok && own == k.At {
			c.err = ErrDelegating
		}
	}
	return c
}

func (c *Copied) put(at remote.Addr, b []byte) { c.copies[at] = b }

// ReadMemory implements remote.Reader.
func (c *Copied) ReadMemory(p []byte, at remote.Addr) (int, error) {
	if b := c.copies[at]; len(b) >= len(p) {
		return copy(p, b), nil
	}
	n, err := c.live.ReadMemory(p, at)
	if n > 0 {
		c.notes = append(c.notes, span{at, bytes.Clone(p[:n])})
	}
	return n, err
}

// Walk reads the frames.
func (c *Copied) Walk() Stack {
	if c.err != nil {
		return Stack{Err: c.err}
	}
	s := c.th.Walk(c)
	if errors.Is(s.Err, errNoString) || s.Err == nil && (!evalsAgree(s.Frames) || !c.closuresLive(s.Frames)) {
		return Stack{Err: ErrGone}
	}
	return s
}

const (
	// closureFunc is where a zend_closure has its function: behind its
	// zend_object with one zval, in every version (Zend/zend_closures.c).
	closureFunc = 56
	// maxReferences is what nothing has as many references as; the lower half of
	// a pointer, which a freed object has there, is more but for a few places.
	maxReferences = 1 << 20
)

// closuresLive reports whether the closures that ran are still objects. What
// is left of a freed one leads to names that may be others' by now.
func (c *Copied) closuresLive(frames []Frame) bool {
	for i := range frames {
		f := &frames[i]
		if !f.closure {
			continue
		}
		var b [8]byte
		if f.Func < closureFunc || remote.ReadFull(c.live, b[:], f.Func-closureFunc) != nil {
			return false
		}
		n := binary.LittleEndian.Uint32(b[:])
		if n == 0 || n > maxReferences || b[countedType]&countedMask != zObject {
			return false
		}
	}
	return true
}

// evalMark ends the file name of evaluated code, behind the place of the eval
// (zend_make_compiled_string_description in Zend/zend.c).
const evalMark = " : eval()'d code"

// evalsAgree reports whether evaluated code bears the name of the place that it
// was evaluated at. Such code is thrown away as soon as it has run, and the
// next often takes exactly its place: only the name, which is read later, tells
// them apart. A closure made in it must have been made by an eval that is
// still running, or nothing proves its name.
func evalsAgree(frames []Frame) bool {
	running := make(map[string]bool)
	for i := len(frames) - 1; i >= 0; i-- {
		f := &frames[i]
		if f.Function != "eval" || !f.needsIncluder {
			if f.closure && strings.HasSuffix(f.File, evalMark) && !running[f.File] {
				return false
			}
			continue
		}
		if i+1 == len(frames) {
			return false
		}
		by := &frames[i+1]
		if f.File != fmt.Sprintf("%s(%d)%s", by.File, by.Line, evalMark) {
			return false
		}
		running[f.File] = true
	}
	return true
}

// Identity is what tells a function's copy from another's that took its place.
func (rt *Runtime) Identity(body []byte) [64]byte {
	var out [64]byte
	l := rt.Layout
	n := 0
	word := func(off, size uint64) {
		if off+size <= uint64(len(body)) {
			n += copy(out[n:], body[off:off+size])
		}
	}
	if uint64(len(body)) <= l.FuncType {
		return out
	}
	kind := body[l.FuncType]
	word(l.FuncType, 1)
	word(l.FuncFlags, 4)
	word(l.FuncName, 8)
	word(l.FuncScope, 8)
	if kind == l.TypeInternal {
		word(l.InternalHandler, 8)
		return out
	}
	word(l.OpFilename, 8)
	word(l.OpOpcodes, 8)
	word(l.OpLast, 4)
	word(l.OpLineStart, 4)
	word(l.OpLineEnd, 4)
	return out
}

// Check is what must still be so for names that were read of a process to be
// those of a chain that was copied.
type Check struct {
	rt    *Runtime
	funcs []funcCheck
	notes []span
	b     []byte
}

type funcCheck struct {
	at   remote.Addr
	size int
	is   [64]byte
}

// Check returns what has been read of the process so far, and the functions.
func (c *Copied) Check(links []Link) *Check {
	k := &Check{rt: c.rt, notes: merged(c.notes)}
	l := c.rt.Layout
	seen := make(map[remote.Addr]bool)
	for i := range links {
		f := &links[i]
		if f.Body == nil || seen[f.Func] {
			continue
		}
		seen[f.Func] = true
		n := int(l.FuncSize)
		if f.Body[l.FuncType] == l.TypeInternal {
			n = int(l.InternalHandler + 8)
		}
		k.funcs = append(k.funcs, funcCheck{f.Func, n, c.rt.Identity(f.Body)})
	}
	return k
}

// merged leaves out what was read twice.
func merged(in []span) []span {
	var out []span
	have := make(map[remote.Addr]int)
	for _, s := range in {
		if i, ok := have[s.at]; ok && len(out[i].b) >= len(s.b) {
			continue
		}
		have[s.at] = len(out)
		out = append(out, s)
	}
	return out
}

// Holds reads everything again.
func (k *Check) Holds(r BatchReader) error {
	n := 0
	for i := range k.funcs {
		n += k.funcs[i].size
	}
	for i := range k.notes {
		n += len(k.notes[i].b)
	}
	if cap(k.b) < n {
		k.b = make([]byte, n)
	}
	b := k.b[:0]
	regions := make([]remote.Region, 0, len(k.funcs)+len(k.notes))
	for i := range k.funcs {
		regions = append(regions, remote.Region{At: k.funcs[i].at, Len: k.funcs[i].size})
	}
	for i := range k.notes {
		regions = append(regions, remote.Region{At: k.notes[i].at, Len: len(k.notes[i].b)})
	}
	b = b[:n]
	if !r.ReadAll(regions, b) {
		return fmt.Errorf("%w: their memory is not there", ErrGone)
	}
	for i := range k.funcs {
		f := &k.funcs[i]
		if k.rt.Identity(b[:f.size]) != f.is {
			return ErrGone
		}
		b = b[f.size:]
	}
	for i := range k.notes {
		s := k.notes[i].b
		if !bytes.Equal(b[:len(s)], s) {
			return ErrGone
		}
		b = b[len(s):]
	}
	return nil
}

// BatchReader reads many places at once into one buffer, all or nothing.
type BatchReader interface {
	ReadAll(regions []remote.Region, into []byte) bool
}

// Any returns the thread of an engine that is not thread-safe, and of another
// one that has none to tell anything but offsets by.
func (rt *Runtime) Any() *Thread {
	if rt.only != nil {
		return rt.only
	}
	return &Thread{rt: rt}
}
