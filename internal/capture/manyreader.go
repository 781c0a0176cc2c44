package capture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	// MaxProcesses and MaxBinaries bound what one capture of many processes defines.
	MaxProcesses = 1 << 20
	MaxBinaries  = 1 << 16
)

// Stream reads captures of either version, line by line. It holds one line at a
// time, and of what it has read only how much there was: a file may be larger
// than memory. Files that are appended to one another are a file.
type Stream struct {
	r    *Reader
	many bool // within a capture of many processes
	one  *oneStream
	n    struct{ binaries, processes, stacks int }
	open bool // a header was read and no end line since
	// begun: there was a header.
	begun bool
	last  error
	next  []Record
}

// NewStream returns a Stream of r, which is not compressed (see Open and Decompress).
func NewStream(r io.Reader) *Stream {
	s := &Stream{r: NewReader(r)}
	s.r.lim.bytes = 1 << 62
	return s
}

// Next returns the next record, and io.EOF when there is none. An error that is
// ErrTruncated comes once, at the end: what was read until then counts. Any other
// error is final.
func (s *Stream) Next() (Record, error) {
	for len(s.next) == 0 {
		if err := s.last; err != nil {
			if errors.Is(err, ErrTruncated) {
				s.last = io.EOF
			}
			return Record{}, err
		}
		if s.last = s.read(); s.one != nil && s.one.p.c != nil && s.last != nil {
			s.next, s.one = s.one.cut(), nil
		}
	}
	rec := s.next[0]
	s.next = s.next[1:]
	return rec, nil
}

func (s *Stream) read() error {
	b, whole, err := s.r.bytes()
	if err != nil {
		if errors.Is(err, io.EOF) && s.open {
			s.open = false
			return &LineError{max(s.r.n, 1), ErrTruncated}
		}
		return err
	}
	if !whole && !json.Valid(b) {
		if !s.begun && !begins(b) {
			return &LineError{s.r.n, ErrSchema}
		}
		return &LineError{s.r.n, ErrTruncated}
	}
	if err := s.line(b); err != nil {
		return &LineError{s.r.n, err}
	}
	return nil
}

// begins reports whether a line is the beginning of a header.
func begins(b []byte) bool {
	const head = `{"schema":"phpwhy/capture/`
	n := min(len(b), len(head))
	return n > 0 && string(b[:n]) == head[:n]
}

func (s *Stream) line(b []byte) error {
	if bytes.HasPrefix(b, []byte(`{"schema"`)) || !s.open {
		return s.header(b)
	}
	if !s.many {
		return s.lineOfOne(b)
	}
	var rec Record
	if e, ok := quickEvent(b); ok {
		rec.Event = &e
	} else {
		l, err := decodeMany(b)
		if err != nil {
			return err
		}
		if rec, err = l.record(s.n.binaries); err != nil {
			return err
		}
	}
	if err := s.check(&rec); err != nil {
		return err
	}
	s.next = append(s.next[:0], rec)
	return nil
}

func (s *Stream) header(b []byte) error {
	var h struct {
		Schema *string `json:"schema"`
	}
	if err := json.Unmarshal(b, &h); err != nil {
		if s.begun {
			return err
		}
		return fmt.Errorf("%w: %w", ErrSchema, err)
	}
	if h.Schema == nil {
		return fmt.Errorf("%w: the first line has no schema", ErrSchema)
	}
	if s.one != nil { // the capture before this one was cut off
		s.next, s.one = append(s.next[:0], s.one.cut()...), nil
	} else {
		s.next = s.next[:0]
	}
	s.n.binaries, s.n.processes, s.n.stacks, s.open, s.begun = 0, 0, 0, true, true
	switch *h.Schema {
	case SchemaMany:
		l, err := decodeMany(b)
		if err != nil {
			return err
		}
		s.many = true
		s.next = append(s.next, Record{Header: l.Header})
		return nil
	case Schema:
		l, err := decodeLine(b)
		if err != nil {
			return err
		}
		s.many = false
		s.one = &oneStream{p: parser{r: s.r, ids: map[int]int{}}}
		if err := s.one.p.header(l); err != nil {
			return err
		}
		s.next = append(s.next, Record{Header: &Header{}}, Record{Process: s.one.process()})
		return nil
	}
	return foreign(*h.Schema)
}

// record converts a decoded line.
func (l *manyLine) record(binaries int) (Record, error) {
	rec := Record{Binary: l.Binary, Process: l.Process, Failure: l.Failure, Gone: l.Gone, End: l.End}
	var err error
	switch {
	case l.Stack != nil:
		rec.Stack, err = l.Stack.stack(binaries)
	case l.Event != nil:
		var e Event
		e, err = l.Event.event()
		rec.Event = &ProcessEvent{Event: normalEvent(e), Process: l.Event.Process, Round: l.Event.Round}
	case l.Look != nil:
		rec.Look, err = l.Look.look()
	}
	return rec, err
}

// check holds a record against what was defined before it.
func (s *Stream) check(rec *Record) error {
	process := func(id, round int) error {
		if id < 0 || id >= s.n.processes {
			return fmt.Errorf("process %d, which no line before it defines", id)
		}
		if round < 1 {
			return fmt.Errorf("round %d: the first is 1", round)
		}
		return nil
	}
	// define takes the next number: numbers have no gaps, so that readers need
	// no more memory than there are things.
	define := func(what string, id int, n *int, most int) error {
		switch {
		case id != *n:
			return fmt.Errorf("%s %d, where %d is the next number", what, id, *n)
		case id >= most:
			return overLimit(what, int64(most))
		}
		*n++
		return nil
	}
	switch {
	case rec.Binary != nil:
		return define("binary", rec.Binary.ID, &s.n.binaries, MaxBinaries)
	case rec.Process != nil:
		return define("process", rec.Process.ID, &s.n.processes, MaxProcesses)
	case rec.Stack != nil:
		return define("stack", rec.Stack.ID, &s.n.stacks, MaxStacks)
	case rec.Event != nil:
		if err := checkEvent(&rec.Event.Event, s.n.stacks); err != nil {
			return err
		}
		return process(rec.Event.Process, rec.Event.Round)
	case rec.Look != nil:
		return process(rec.Look.Process, rec.Look.Round)
	case rec.Gone != nil:
		return process(rec.Gone.Process, rec.Gone.Round)
	case rec.End != nil:
		s.open = false
	}
	return nil
}

// oneStream turns the lines of a capture of one process into records.
type oneStream struct {
	p    parser
	seen Observation // of the events, for a capture that is cut off
	ids  int
	num  map[int]int
}

func (o *oneStream) process() *Process {
	t := o.p.c.Target
	t.Request, t.Requests = nil, nil
	return &Process{PID: t.PID, Target: t}
}

func (s *Stream) lineOfOne(b []byte) error {
	l, err := decodeLine(b)
	if err != nil {
		return err
	}
	kind, err := l.kind()
	if err != nil {
		return err
	}
	o := s.one
	s.next = s.next[:0]
	switch kind {
	case "stack":
		return s.stackOfOne(l.Stack)
	case "event":
		e, err := l.Event.event()
		if err != nil {
			return err
		}
		id, ok := o.num[e.Stack]
		if !ok {
			return fmt.Errorf("event points at stack %d, which no line before it defines", e.Stack)
		}
		e.Stack = id
		if err := checkEvent(&e, o.ids); err != nil {
			return err
		}
		o.count(&e)
		s.next = append(s.next, Record{Event: &ProcessEvent{Event: normalEvent(e), Round: 1}})
		return nil
	case "facts":
		return o.p.setFacts(*l.Facts)
	case "end":
		if _, err := o.p.line(l); err != nil {
			return err
		}
		s.next = append(s.next, o.look(o.p.c.Observation), Record{End: &End{Rounds: 1, Ended: "done"}})
		s.one, s.open = nil, false
		return nil
	}
	return fmt.Errorf("a %s line in the middle of a capture", kind)
}

func (s *Stream) stackOfOne(l *stackLine) error {
	o := s.one
	if o.num == nil {
		o.num = make(map[int]int)
	}
	if _, ok := o.num[l.ID]; ok {
		return fmt.Errorf("stack %d is there already", l.ID)
	}
	if o.ids >= MaxStacks {
		return overLimit("stacks", MaxStacks)
	}
	if err := checkStack(&l.Stack); err != nil {
		return err
	}
	p := &PlacedStack{ID: o.ids, Stack: normalStack(l.Stack), Places: make([]Place, len(l.Frames))}
	for i := range p.Places {
		p.Places[i].Binary = NoBinary
	}
	p.setExact()
	o.num[l.ID] = o.ids
	o.ids++
	s.next = append(s.next, Record{Stack: p})
	return nil
}

func (o *oneStream) count(e *Event) {
	if e.Kind == Stop {
		o.seen.Stops++
	} else {
		o.seen.Samples++
	}
	o.seen.DurationMS = max(o.seen.DurationMS, e.At.Milliseconds())
}

func (o *oneStream) look(obs Observation) Record {
	c := o.p.c
	return Record{Look: &Look{Round: 1, Observation: obs, Request: c.Target.Request, Requests: c.Target.Requests,
		Facts: c.Facts, Variables: c.Variables}}
}

// cut is what a capture tells whose end is missing.
func (o *oneStream) cut() []Record {
	obs := o.seen
	obs.Ended, obs.Notes = "truncated", []string{"the capture file is cut off: what follows its last event is unknown"}
	return []Record{o.look(normalObservation(obs))}
}

// quickEvent reads an event line as StreamWriter writes it, without arguments,
// which is nearly all there is in a long file. It leaves any other to the decoder.
func quickEvent(b []byte) (ProcessEvent, bool) {
	q := quick{b: b, ok: true}
	q.text(`{"event":{"t_us":`)
	us := q.number()
	q.text(`,"kind":"sample","tid":`)
	tid := q.number()
	q.text(`,"stack":`)
	st := q.number()
	q.text(`,"process":`)
	proc := q.number()
	q.text(`,"round":`)
	round := q.number()
	q.text(`}}`)
	if !q.ok || len(q.b) > 0 || us > int64(maxStreamTime/time.Microsecond) {
		return ProcessEvent{}, false
	}
	e := Event{At: time.Duration(us) * time.Microsecond, Kind: Sample, TID: int(tid), Stack: int(st)}
	return ProcessEvent{Event: e, Process: int(proc), Round: int(round)}, true
}

type quick struct {
	b  []byte
	ok bool
}

func (q *quick) text(s string) {
	if !q.ok || len(q.b) < len(s) || string(q.b[:len(s)]) != s {
		q.ok = false
		return
	}
	q.b = q.b[len(s):]
}

// number reads up to 18 digits, which no int64 overflows.
func (q *quick) number() int64 {
	n, i := int64(0), 0
	for i < len(q.b) && i < 18 && q.b[i] >= '0' && q.b[i] <= '9' {
		n = n*10 + int64(q.b[i]-'0')
		i++
	}
	if i == 0 || i > 1 && q.b[0] == '0' {
		q.ok = false
	}
	q.b = q.b[i:]
	return n
}
