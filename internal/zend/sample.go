package zend

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Sampling without stopping the worker: its stack changes while it is read.
// What is read is therefore read again, several times, and only counts if it
// was the same each time and ends as a stack must. The functions, names and
// lines it leads to are read in between.

const (
	// rereads is how often the stack must read the same again. One coincidence
	// is common in a loop that makes the same calls over and over; each
	// further one is as rare again.
	rereads = 4
	// sampleAhead is what is read at once at least, in bytes.
	sampleAhead = 4096
)

// ErrTorn says that a stack changed each time it was read.
var ErrTorn = errors.New("the PHP stack changed while it was read")

// Sample reads the frames of a thread that is running, trying at most so many
// times. torn counts the tries that saw a stack in the middle of a change. A
// stack that is returned without an error was there as a whole; Err wraps
// ErrTorn when there was none.
func (th *Thread) Sample(r remote.Reader, tries int) (s Stack, torn int) {
	for range tries {
		s, err := th.sampleOnce(r)
		if err == nil {
			return s, torn
		}
		torn++
	}
	// A broken stack, too, is never read twice the same; but a walk over it
	// ends with the same error each time.
	return Stack{Err: fmt.Errorf("%w: %d times", ErrTorn, tries)}, torn
}

// errChanged ends one try.
var errChanged = errors.New("changed")

func (th *Thread) sampleOnce(r remote.Reader) (Stack, error) {
	t := &tape{r: r}
	funcs, broken := th.record(t)
	broken = th.rooted(t, funcs, broken)
	for range rereads {
		if !t.same() {
			return Stack{}, errChanged
		}
	}
	if broken != nil && !errors.Is(broken, ErrDepth) {
		// It held still, and it is not a stack.
		return Stack{}, broken
	}
	// The names can be read at leisure as long as their functions are the same
	// afterwards.
	s := th.Walk(t.over())
	if s.Err != nil && !errors.Is(s.Err, ErrDepth) {
		return Stack{}, s.Err
	}
	if !t.sameFunctions() {
		return Stack{}, errChanged
	}
	return s, nil
}

// record reads the chain of execute_data and the functions onto a tape.
func (th *Thread) record(t *tape) ([]remote.Addr, error) {
	l := th.rt.Layout
	if l.PHP5 {
		s := th.walk5(t)
		if len(s.Frames) > 0 {
			t.innermost = s.Frames[0].ExecuteData
		}
		return nil, s.Err
	}
	if top, err := remote.Pointer(t.r, th.eg+remote.Addr(l.EGStackTop)); err == nil {
		t.load(top)
	}
	var funcs []remote.Addr
	seen := make(map[remote.Addr]bool)
	n := 0
	err := th.chain(t, func(k link) (int, error) {
		if n++; n == 1 {
			t.innermost, t.keep = k.at, []uint64{l.EDFunc, l.EDPrev}
		}
		if fn := k.word(l.EDFunc); !seen[fn] {
			seen[fn] = true
			funcs = append(funcs, fn)
		}
		return n, nil
	})
	if err != nil && !errors.Is(err, ErrDepth) {
		return funcs, err
	}
	t.chain = len(t.log)
	b := make([]byte, l.FuncSize)
	for _, fn := range funcs {
		if n, err := t.ReadMemory(b, fn); err != nil && uint64(n) < l.InternalHandler+8 {
			return funcs, err
		}
	}
	return funcs, err
}

// rooted checks that the chain's end is one: PHP's outermost frame is run by
// C code, which marks it so. The frame of a call that is still being prepared
// has no caller yet, and no such mark; a generator always has a caller.
func (th *Thread) rooted(t *tape, funcs []remote.Addr, err error) error {
	l := th.rt.Layout
	if err != nil || l.PHP5 || len(funcs) == 0 {
		return err // of ErrDepth the outermost frame was not reached
	}
	var last []byte
	for i := range t.log[:t.chain] {
		if s := &t.log[i]; uint64(len(s.b)) == l.EDSize && binary.LittleEndian.Uint64(s.b[l.EDFunc:]) != 0 {
			last = s.b
		}
	}
	if last == nil {
		return errChanged
	}
	fn := remote.Addr(binary.LittleEndian.Uint64(last[l.EDFunc:]))
	flags := uint32(0)
	for i := range t.log[t.chain:] {
		if s := &t.log[t.chain+i]; s.at == fn && uint64(len(s.b)) >= l.FuncFlags+4 {
			flags = binary.LittleEndian.Uint32(s.b[l.FuncFlags:])
		}
	}
	if !l.root(last, flags) {
		return errChanged
	}
	return nil
}

// root reports whether a frame can be a stack's outermost one.
func (l *Layout) root(ed []byte, flags uint32) bool {
	return binary.LittleEndian.Uint32(ed[l.EDCallInfo:])&l.CallTop != 0 && flags&l.AccGenerator == 0
}

// tape is what was read of a running process, in order.
type tape struct {
	r   remote.Reader
	log []span
	// blocks were read at once, since frames lie side by side; what was asked
	// for in them is in the log, too.
	blocks []block
	// chain is how many of the log are the stack; the rest are functions.
	chain int
	// innermost is the execute_data of the innermost frame, of which only the
	// words at keep must stay: it runs.
	innermost remote.Addr
	keep      []uint64
}

type span struct {
	at remote.Addr
	b  []byte
}

// block is a span of which the part from low to high was asked for.
type block struct {
	span
	low, high remote.Addr
	again     span // that part, when it was read again
}

func (s *span) holds(at remote.Addr, n int) ([]byte, bool) {
	off, ok := at.Distance(s.at)
	if !ok || off > uint64(len(s.b)) || uint64(n) > uint64(len(s.b))-off {
		return nil, false
	}
	return s.b[off : off+uint64(n)], true
}

// load reads the memory below the VM stack's top.
func (t *tape) load(top remote.Addr) {
	if top < sampleAhead {
		return
	}
	if !t.read(top-sampleAhead, sampleAhead) {
		// Not so much has been used of the first page.
		at := top &^ (sampleAhead - 1)
		t.read(at, int(top-at))
	}
}

func (t *tape) read(at remote.Addr, n int) bool {
	b := make([]byte, n)
	if n == 0 || remote.ReadFull(t.r, b, at) != nil {
		return false
	}
	t.blocks = append(t.blocks, block{span: span{at, b}, low: ^remote.Addr(0)})
	return true
}

func (t *tape) find(at remote.Addr, n int) (*block, []byte) {
	for i := range t.blocks {
		if b, ok := t.blocks[i].holds(at, n); ok {
			return &t.blocks[i], b
		}
	}
	return nil, nil
}

// ReadMemory implements remote.Reader.
func (t *tape) ReadMemory(p []byte, at remote.Addr) (int, error) {
	k, b := t.find(at, len(p))
	if k == nil && t.chain == 0 {
		// The deeper the stack, the more lies side by side.
		size := sampleAhead << min(2*(len(t.blocks)/4), 4)
		if t.read(at&^remote.Addr(size-1), size) {
			k, b = t.find(at, len(p))
		}
	}
	if k != nil {
		if t.chain == 0 {
			k.low, k.high = min(k.low, at), max(k.high, at+remote.Addr(len(p)))
		}
		t.log = append(t.log, span{at, b})
		return copy(p, b), nil
	}
	n, err := t.r.ReadMemory(p, at)
	t.log = append(t.log, span{at, bytes.Clone(p[:n])})
	return n, err
}

// same reads the stack again.
func (t *tape) same() bool {
	if t.chain == 0 {
		t.chain = len(t.log)
	}
	for i := range t.blocks {
		k := &t.blocks[i]
		if k.low >= k.high {
			continue
		}
		if k.again.b == nil {
			k.again = span{k.low, make([]byte, k.high-k.low)}
		}
		if remote.ReadFull(t.r, k.again.b, k.low) != nil {
			return false
		}
	}
	for i := range t.log[:t.chain] {
		s := &t.log[i]
		var b []byte
		if k, _ := t.find(s.at, len(s.b)); k != nil {
			b, _ = k.again.holds(s.at, len(s.b))
		}
		if b == nil {
			b = make([]byte, len(s.b))
			if remote.ReadFull(t.r, b, s.at) != nil {
				return false
			}
		}
		if !t.equal(s, b) {
			return false
		}
	}
	return true
}

func (t *tape) equal(s *span, b []byte) bool {
	if s.at != t.innermost || t.keep == nil {
		return bytes.Equal(s.b, b)
	}
	for _, off := range t.keep {
		if off+8 > uint64(len(b)) || off+8 > uint64(len(s.b)) || !bytes.Equal(s.b[off:off+8], b[off:off+8]) {
			return false
		}
	}
	return true
}

// sameFunctions reads the functions again.
func (t *tape) sameFunctions() bool {
	for i := range t.log[t.chain:] {
		s := &t.log[t.chain+i]
		b := make([]byte, len(s.b))
		if remote.ReadFull(t.r, b, s.at) != nil || !bytes.Equal(s.b, b) {
			return false
		}
	}
	return true
}

// over shows what is on the tape, and behind it live memory.
func (t *tape) over() remote.Reader {
	byAddr := make(map[remote.Addr][]byte, len(t.log))
	for i := range t.log {
		if s := &t.log[i]; len(s.b) > len(byAddr[s.at]) {
			byAddr[s.at] = s.b
		}
	}
	return remote.ReaderFunc(func(p []byte, at remote.Addr) (int, error) {
		if b := byAddr[at]; len(b) >= len(p) {
			return copy(p, b), nil
		}
		return t.r.ReadMemory(p, at)
	})
}
