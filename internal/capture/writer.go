package capture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/phpwhy/phpwhy/internal/stack"
)

// Writer writes one capture as it happens: header, then stacks and events,
// then facts and the end. What was flushed is readable even if the rest never
// comes. It is not safe for concurrent use.
type Writer struct {
	buf    *bufio.Writer
	under  io.Writer
	in     Interner
	events int
	bytes  int64
	lim    limits
	err    error // the first write error; every later call returns it
	ended  bool
}

// Write writes the whole capture to w.
func Write(w io.Writer, c *Capture) error {
	cw, err := NewWriter(w, c.Target)
	if err != nil {
		return err
	}
	ids := make([]int, len(c.Stacks))
	for i := range c.Stacks {
		if ids[i], err = cw.Stack(c.Stacks[i]); err != nil {
			return fmt.Errorf("stack %d: %w", i, err)
		}
	}
	for i, e := range c.Events {
		if err := checkEvent(&e, len(ids)); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
		e.Stack = ids[e.Stack]
		if err := cw.Event(e); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	return cw.End(c.Facts, c.Observation, c.Variables...)
}

// NewWriter writes the header of a capture of t to w.
func NewWriter(w io.Writer, t Target) (*Writer, error) {
	cw := &Writer{buf: bufio.NewWriterSize(w, 64<<10), under: w, lim: defaultLimits()}
	schema, target := Schema, normalTarget(t)
	return cw, cw.line(line{Schema: &schema, Target: &target})
}

// Stack writes s unless an equal one was written (see Interner), and returns
// the index that events refer to.
func (w *Writer) Stack(s stack.Stack) (int, error) {
	if err := checkStack(&s); err != nil {
		return 0, err
	}
	id, added := w.in.Add(s)
	if !added {
		return id, w.err
	}
	if id >= w.lim.stacks {
		return 0, overLimit("stacks", int64(w.lim.stacks))
	}
	return id, w.line(line{Stack: &stackLine{ID: id, Stack: w.in.Stacks()[id]}})
}

// Event writes e, whose Stack must be an index that Stack returned.
func (w *Writer) Event(e Event) error {
	if err := checkEvent(&e, w.in.Len()); err != nil {
		return err
	}
	if w.events >= w.lim.events {
		return overLimit("events", int64(w.lim.events))
	}
	w.events++
	return w.line(line{Event: encodeEvent(&e)})
}

// End writes the facts and the end line, with the variables that were watched,
// and flushes. The Writer is of no
// further use; it does not close what it writes to.
func (w *Writer) End(facts map[string]any, o Observation, vs ...Variable) error {
	if err := checkVariables(vs); err != nil {
		return err
	}
	n, err := normalFacts(facts)
	if err != nil {
		return err
	}
	for k, v := range n {
		n[k] = encodeFact(v)
	}
	if err := w.line(line{Facts: &n}); err != nil {
		return err
	}
	if err := w.line(line{End: &endLine{normalObservation(o), normalVariables(vs)}}); err != nil {
		return err
	}
	w.ended = true
	return w.Flush()
}

// Flush hands everything written so far to the file, through the compressor if
// there is one.
func (w *Writer) Flush() error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.buf.Flush(); w.err != nil {
		return w.err
	}
	if f, ok := w.under.(interface{ Flush() error }); ok {
		w.err = f.Flush()
	}
	return w.err
}

func (w *Writer) line(l line) error {
	if w.err != nil {
		return w.err
	}
	if w.ended {
		return errors.New("the capture has its end line already")
	}
	b, err := marshal(l)
	if err != nil {
		w.err = err
		return err
	}
	// An over-long line is refused before a byte of it is out. The stack it
	// may have held keeps its index, so nothing can follow.
	w.bytes += int64(len(b))
	if len(b) > w.lim.line || w.bytes > w.lim.bytes {
		w.err = fmt.Errorf("%w: a line of %d bytes in a capture of %d", ErrLimit, len(b), w.bytes)
		return w.err
	}
	_, w.err = w.buf.Write(b)
	return w.err
}

// marshal is one line of JSON with its newline; "<" stays "<", as files are not HTML.
func marshal(v any) ([]byte, error) {
	var b lineBuffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b, err
}

type lineBuffer []byte

func (b *lineBuffer) Write(p []byte) (int, error) { *b = append(*b, p...); return len(p), nil }
