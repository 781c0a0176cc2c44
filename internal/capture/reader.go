package capture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Reader reads the captures of one file, one after the other: files that are
// appended to one another are a file.
type Reader struct {
	r    *bufio.Reader
	n    int   // lines read
	size int64 // bytes read of this capture
	next *line // a header that ended a truncated capture
	err  error // that ended the file; sticky
	lim  limits
}

// NewReader returns a Reader of r, which is not compressed (see Open and Decompress).
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), lim: defaultLimits()}
}

// Read reads a file that holds one capture. A file that was cut off gives what
// is readable together with an error that is ErrTruncated; the capture is nil
// when there is not even a header.
func Read(r io.Reader) (*Capture, error) { return readOne(NewReader(r)) }

func readOne(r *Reader) (*Capture, error) {
	c, err := r.Next()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = &LineError{1, fmt.Errorf("%w: the file is empty", ErrTruncated)}
		}
		return c, err
	}
	switch extra, err := r.Next(); {
	case errors.Is(err, io.EOF):
		return c, nil
	case extra == nil && errors.Is(err, ErrTruncated):
		return c, err // a compressed file that lost only its checksum, for one
	}
	return nil, &LineError{r.n, errors.New("text after the end line")}
}

// Next returns the next capture, and io.EOF when there is none. After an error
// that is ErrTruncated it may be called again; any other error is final.
func (r *Reader) Next() (*Capture, error) {
	if r.err != nil {
		return nil, r.err
	}
	head := r.next
	r.next, r.size = nil, 0
	if head == nil {
		var err error
		if head, err = r.line(); err != nil {
			r.err = err
			if errors.Is(err, ErrTruncated) {
				r.err = io.EOF
			}
			return nil, err
		}
	}
	p := parser{r: r, ids: map[int]int{}}
	if err := p.header(head); err != nil {
		r.err = &LineError{r.n, err}
		return nil, r.err
	}
	for {
		l, err := r.line()
		switch {
		case errors.Is(err, io.EOF):
			r.err = io.EOF
			return p.cut(), &LineError{r.n, ErrTruncated}
		case errors.Is(err, ErrTruncated):
			r.err = io.EOF
			return p.cut(), err
		case err != nil:
			r.err = err
			return nil, err
		case l.Schema != nil && l.Stack == nil && l.Event == nil:
			r.next = l
			return p.cut(), &LineError{r.n, ErrTruncated}
		}
		done, err := p.line(l)
		if err != nil {
			r.err = &LineError{r.n, err}
			return nil, r.err
		}
		if done {
			return p.c, nil
		}
	}
}

// line reads and decodes one line; its errors name the line, except io.EOF.
func (r *Reader) line() (*line, error) {
	b, whole, err := r.bytes()
	if err != nil {
		return nil, err
	}
	// A line without its newline is the last; when it is no JSON either, the
	// file was cut inside it.
	if !whole && !json.Valid(b) {
		return nil, &LineError{r.n, ErrTruncated}
	}
	l, err := decodeLine(b)
	if err != nil {
		return nil, &LineError{r.n, err}
	}
	return l, nil
}

// bytes returns the next line without its newline, and whether it had one.
func (r *Reader) bytes() (b []byte, whole bool, err error) {
	for {
		part, err := r.r.ReadSlice('\n')
		if len(b) == 0 && len(part) > 0 {
			r.n++
		}
		if len(b)+len(part) > r.lim.line {
			return nil, false, &LineError{r.n, overLimit("bytes in a line", int64(r.lim.line))}
		}
		if r.size += int64(len(part)); r.size > r.lim.bytes {
			return nil, false, &LineError{r.n, overLimit("bytes in a capture", r.lim.bytes)}
		}
		b = append(b, part...)
		switch {
		case err == nil:
			return b[:len(b)-1], true, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(b) == 0:
			return nil, false, io.EOF
		case errors.Is(err, io.EOF):
			return b, false, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			// The decompressor's way to say that its input was cut.
			return nil, false, &LineError{max(r.n, 1), ErrTruncated}
		default:
			return nil, false, &LineError{max(r.n, 1), err}
		}
	}
}

// parser builds one capture from its lines.
type parser struct {
	r     *Reader
	c     *Capture
	in    Interner
	ids   map[int]int // from the file's stack ids to indices
	facts bool
}

func (p *parser) header(l *line) error {
	if l.Schema == nil {
		return fmt.Errorf("%w: the first line has no schema", ErrSchema)
	}
	if *l.Schema != Schema {
		return foreign(*l.Schema)
	}
	if _, err := l.kind(); err != nil {
		return err
	}
	if l.Target == nil {
		return errors.New("the header has no target")
	}
	p.c = &Capture{Target: *l.Target, Facts: map[string]any{}}
	return nil
}

// line takes one line; done after the end line.
func (p *parser) line(l *line) (done bool, err error) {
	kind, err := l.kind()
	if err != nil {
		return false, err
	}
	switch kind {
	case "stack":
		return false, p.stack(l.Stack)
	case "event":
		return false, p.event(l.Event)
	case "facts":
		return false, p.setFacts(*l.Facts)
	case "end":
		if !p.facts {
			return false, errors.New("the end line comes without a facts line before it")
		}
		if err := checkVariables(l.End.Variables); err != nil {
			return false, err
		}
		p.c.Observation = normalObservation(l.End.Observation)
		p.c.Variables = normalVariables(l.End.Variables)
		p.finish()
		return true, nil
	}
	return false, fmt.Errorf("a %s line in the middle of a capture", kind)
}

func (p *parser) stack(l *stackLine) error {
	if _, ok := p.ids[l.ID]; ok {
		return fmt.Errorf("stack %d is there already", l.ID)
	}
	if len(p.ids) >= p.r.lim.stacks {
		return overLimit("stacks", int64(p.r.lim.stacks))
	}
	if err := checkStack(&l.Stack); err != nil {
		return err
	}
	p.ids[l.ID], _ = p.in.Add(l.Stack)
	return nil
}

func (p *parser) event(l *eventLine) error {
	e, err := l.event()
	if err != nil {
		return err
	}
	id, ok := p.ids[e.Stack]
	if !ok {
		return fmt.Errorf("event points at stack %d, which no line before it defines", e.Stack)
	}
	e.Stack = id
	if err := checkEvent(&e, p.in.Len()); err != nil {
		return err
	}
	if len(p.c.Events) >= p.r.lim.events {
		return overLimit("events", int64(p.r.lim.events))
	}
	p.c.Events = append(p.c.Events, normalEvent(e))
	return nil
}

func (p *parser) setFacts(raw map[string]any) error {
	if p.facts {
		return errors.New("a second facts line")
	}
	for k, v := range raw {
		n, err := decodeFact(v, maxDepth)
		if err != nil {
			return fmt.Errorf("fact %q: %w", k, err)
		}
		raw[k] = n
	}
	facts, err := normalFacts(raw)
	if err != nil {
		return err
	}
	p.c.Facts, p.facts = facts, true
	return nil
}

func (p *parser) finish() { p.c.Stacks = p.in.Stacks() }

// cut completes a capture whose end is missing with what its events tell.
func (p *parser) cut() *Capture {
	p.finish()
	o := Observation{Ended: "truncated", Notes: []string{"the capture file is cut off: what follows its last event is unknown"}}
	for i := range p.c.Events {
		if e := &p.c.Events[i]; e.Kind == Stop {
			o.Stops++
		} else {
			o.Samples++
		}
		o.DurationMS = max(o.DurationMS, p.c.Events[i].At.Milliseconds())
	}
	p.c.Observation = normalObservation(o)
	return p.c
}
