package capture

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
)

// maxRemembered bounds the stacks and processes that a StreamWriter tells apart.
// Beyond it a stack may be written a second time, which readers merge.
const maxRemembered = 1 << 18

// StreamWriter writes looks at many processes as they happen. What was flushed is
// readable even if the rest never comes. It is not safe for concurrent use.
type StreamWriter struct {
	w        *Writer // its lines and limits
	binaries map[[2]string]int
	stacks   map[[16]byte]int
	written  int // stacks
	procs    map[procKey]int
	known    int // processes
	hash     hash.Hash
}

type procKey struct {
	pid   int
	start uint64
}

// NewStreamWriter writes the header to w.
func NewStreamWriter(w io.Writer, h Header) (*StreamWriter, error) {
	for _, s := range []*string{&h.Host.Name, &h.Host.BootID, &h.Host.Kernel, &h.Host.Arch, &h.Tool} {
		*s = text(*s)
	}
	h.Started = h.Started.UTC().Truncate(time.Microsecond)
	sw := &StreamWriter{
		w:        &Writer{buf: bufio.NewWriterSize(w, 64<<10), under: w, lim: limits{line: MaxLine, bytes: 1 << 62}},
		binaries: make(map[[2]string]int), stacks: make(map[[16]byte]int), procs: make(map[procKey]int), hash: sha256.New(),
	}
	return sw, sw.put(manyLine{Schema: SchemaMany, Header: &h})
}

// put writes a line of this format through the line writer of v1.
func (w *StreamWriter) put(l manyLine) error {
	if w.w.err != nil {
		return w.w.err
	}
	if w.w.ended {
		return errors.New("the capture has its end line already")
	}
	b, err := marshal(l)
	if err != nil {
		w.w.err = err
		return err
	}
	if len(b) > w.w.lim.line {
		return fmt.Errorf("%w: a line of %d bytes", ErrLimit, len(b))
	}
	_, w.w.err = w.w.buf.Write(b)
	return w.w.err
}

// Process returns the number of a process in this file, and writes its line when
// it is new.
func (w *StreamWriter) Process(pid int, start uint64, pool string, t Target) (int, error) {
	k := procKey{pid, start}
	if id, ok := w.procs[k]; ok {
		return id, w.w.err
	}
	if len(w.procs) >= maxRemembered {
		clear(w.procs)
	}
	id := w.known
	t = normalTarget(t)
	t.Request, t.Requests = nil, nil
	if err := w.put(manyLine{Process: &Process{ID: id, PID: pid, Start: start, Pool: text(pool), Target: t}}); err != nil {
		return 0, err
	}
	w.procs[k] = id
	w.known++
	return id, nil
}

// Look writes one look at a process: its stacks, events, facts and cost.
func (w *StreamWriter) Look(process, round int, at time.Duration, c *Capture) error {
	ids := make([]int, len(c.Stacks))
	for i := range c.Stacks {
		var err error
		if ids[i], err = w.stack(&c.Stacks[i], c.Modules); err != nil {
			return fmt.Errorf("stack %d: %w", i, err)
		}
	}
	for i, e := range c.Events {
		if err := checkEvent(&e, len(ids)); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
		e.Stack = ids[e.Stack]
		if err := w.put(manyLine{Event: &processLine{eventLine: *encodeEvent(&e), Process: process, Round: round}}); err != nil {
			return err
		}
	}
	l, err := encodeLook(&Look{Process: process, Round: round, At: at, Observation: c.Observation,
		Request: c.Target.Request, Requests: c.Target.Requests, Facts: c.Facts, Variables: c.Variables})
	if err != nil {
		return err
	}
	return w.put(manyLine{Look: l})
}

// stack writes a stack unless one with the same frames at the same places in the
// same binaries was, wherever these are mapped.
func (w *StreamWriter) stack(s *stack.Stack, mods []Module) (int, error) {
	if err := checkStack(s); err != nil {
		return 0, err
	}
	p := PlacedStack{Stack: normalStack(*s), Places: make([]Place, len(s.Frames))}
	for i := range p.Frames {
		p.Places[i].Binary = NoBinary
		f := &p.Frames[i]
		if f.Kind != stack.Native || f.PC == 0 {
			continue
		}
		m := placeOf(mods, uint64(f.PC))
		if m == nil {
			continue
		}
		b, err := w.binary(m)
		if err != nil {
			return 0, err
		}
		p.Places[i] = Place{Binary: b, Addr: uint64(f.PC) - m.Bias}
	}
	k := w.key(&p)
	if id, ok := w.stacks[k]; ok {
		return id, w.w.err
	}
	if len(w.stacks) >= maxRemembered {
		clear(w.stacks)
	}
	p.ID = w.written
	if err := w.put(manyLine{Stack: encodeStack(&p)}); err != nil {
		return 0, err
	}
	w.stacks[k] = p.ID
	w.written++
	return p.ID, nil
}

func (w *StreamWriter) binary(m *Module) (int, error) {
	k := [2]string{text(m.Path), text(m.BuildID)}
	id, ok := w.binaries[k]
	if ok {
		return id, nil
	}
	id = len(w.binaries)
	if err := w.put(manyLine{Binary: &Binary{ID: id, Path: k[0], BuildID: k[1]}}); err != nil {
		return 0, err
	}
	w.binaries[k] = id
	return id, nil
}

// key tells stacks apart by what a reader sees of them.
func (w *StreamWriter) key(s *PlacedStack) (k [16]byte) {
	h := w.hash
	h.Reset()
	b := make([]byte, 0, 256)
	str := func(ss ...string) {
		for _, s := range ss {
			b = binary.AppendUvarint(b, uint64(len(s)))
			b = append(b, s...)
		}
	}
	str(string(s.End), s.Error)
	for i := range s.Frames {
		f, p := &s.Frames[i], s.Places[i]
		str(string(f.Kind), f.Function, f.File, f.Class, f.Opcode, f.Module, f.How)
		at := p.Addr
		if p.Binary == NoBinary {
			at = uint64(f.PC)
		}
		b = binary.AppendVarint(b, int64(p.Binary))
		for _, n := range []uint64{at, uint64(f.Line), uint64(f.Defined)} {
			b = binary.AppendUvarint(b, n)
		}
		h.Write(b)
		b = b[:0]
	}
	copy(k[:], h.Sum(b))
	return k
}

// Fail notes a process that could not be looked at.
func (w *StreamWriter) Fail(pid, round int, err error) error {
	return w.put(manyLine{Failure: &Failure{PID: pid, Round: round, Error: text(err.Error())}})
}

// Gone notes that a process had ended when a round began. One that was never
// looked at is no loss.
func (w *StreamWriter) Gone(pid int, start uint64, round int) error {
	id, ok := w.procs[procKey{pid, start}]
	if !ok {
		return nil
	}
	return w.put(manyLine{Gone: &Gone{Process: id, Round: round}})
}

// Flush makes what was written readable: the end of a round.
func (w *StreamWriter) Flush() error { return w.w.Flush() }

// End writes the end line and flushes.
func (w *StreamWriter) End(rounds int, ended string) error {
	if err := w.put(manyLine{End: &End{Rounds: rounds, Ended: ended}}); err != nil {
		return err
	}
	w.w.ended = true
	return w.Flush()
}
