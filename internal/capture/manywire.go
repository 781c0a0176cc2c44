package capture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// manyLine is any line of phpwhy/capture/v2.
type manyLine struct {
	Schema string `json:"schema,omitempty"` // with the fields of Header
	*Header
	Binary  *Binary      `json:"binary,omitempty"`
	Process *Process     `json:"process,omitempty"`
	Stack   *placedLine  `json:"stack,omitempty"`
	Event   *processLine `json:"event,omitempty"`
	Look    *lookLine    `json:"look,omitempty"`
	Failure *Failure     `json:"failure,omitempty"`
	Gone    *Gone        `json:"gone,omitempty"`
	End     *End         `json:"end,omitempty"`
}

type placedLine struct {
	ID     int         `json:"id"`
	Frames []wireFrame `json:"frames"`
	End    stack.End   `json:"end"`
	Error  string      `json:"error,omitempty"`
}

// wireFrame is either kind of frame; what is empty is left out.
type wireFrame struct {
	Kind     stack.Kind `json:"kind"`
	Function string     `json:"function,omitempty"`
	File     string     `json:"file,omitempty"`
	Line     int        `json:"line,omitempty"`

	Raw     string      `json:"raw,omitempty"`
	Module  string      `json:"module,omitempty"`
	PC      string      `json:"pc,omitempty"`
	Offset  uint64      `json:"offset,omitempty"`
	Inlined bool        `json:"inlined,omitempty"`
	How     string      `json:"how,omitempty"`
	Args    []stack.Arg `json:"args,omitempty"`
	Binary  *int        `json:"binary,omitempty"`
	Addr    string      `json:"addr,omitempty"`

	Class    string        `json:"class,omitempty"`
	Internal bool          `json:"internal,omitempty"`
	Opcode   string        `json:"opcode,omitempty"`
	Defined  int           `json:"defined_line,omitempty"`
	Values   []stack.Value `json:"values,omitzero"`
}

type processLine struct {
	eventLine
	Process int `json:"process"`
	Round   int `json:"round"`
}

type lookLine struct {
	Process     int             `json:"process"`
	Round       int             `json:"round"`
	US          int64           `json:"t_us"`
	Observation Observation     `json:"observation"`
	Request     *Request        `json:"request,omitempty"`
	Requests    []ThreadRequest `json:"requests,omitempty"`
	Facts       map[string]any  `json:"facts"`
	Variables   []Variable      `json:"variables,omitempty"`
}

func encodeStack(s *PlacedStack) *placedLine {
	l := &placedLine{ID: s.ID, Frames: make([]wireFrame, len(s.Frames)), End: s.End, Error: s.Error}
	for i := range s.Frames {
		f := &s.Frames[i]
		w := &l.Frames[i]
		*w = wireFrame{Kind: f.Kind, Function: f.Function, File: f.File, Line: f.Line}
		if f.Kind == stack.PHP {
			w.Class, w.Internal, w.Opcode, w.Defined, w.Values = f.Class, f.Internal, f.Opcode, f.Defined, f.Values
			continue
		}
		w.Raw, w.Module, w.PC, w.Offset = f.Raw, f.Module, f.PC.String(), f.Offset
		w.Inlined, w.How, w.Args = f.Inlined, f.How, f.Args
		if p := s.Places[i]; p.Binary != NoBinary {
			w.Binary, w.Addr = &p.Binary, "0x"+strconv.FormatUint(p.Addr, 16)
		}
	}
	return l
}

func (l *placedLine) stack(binaries int) (*PlacedStack, error) {
	s := &PlacedStack{ID: l.ID, Stack: stack.Stack{Frames: make([]stack.Frame, len(l.Frames)), End: l.End, Error: l.Error}}
	s.Places = make([]Place, len(l.Frames))
	for i := range l.Frames {
		w, f := &l.Frames[i], &s.Frames[i]
		*f = stack.Frame{Kind: w.Kind, Function: w.Function, File: w.File, Line: w.Line,
			Raw: w.Raw, Module: w.Module, Offset: w.Offset, Inlined: w.Inlined, How: w.How, Args: w.Args,
			Class: w.Class, Internal: w.Internal, Opcode: w.Opcode, Defined: w.Defined, Values: w.Values}
		s.Places[i].Binary = NoBinary
		if w.PC != "" {
			pc, err := strconv.ParseUint(w.PC, 0, 64)
			if err != nil {
				return nil, fmt.Errorf("frame's pc %q: %w", w.PC, err)
			}
			f.PC = remote.Addr(pc)
		}
		if w.Binary == nil {
			continue
		}
		if *w.Binary < 0 || *w.Binary >= binaries {
			return nil, fmt.Errorf("frame %d is in binary %d, which no line before it defines", i, *w.Binary)
		}
		at, err := strconv.ParseUint(w.Addr, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("frame's addr %q: %w", w.Addr, err)
		}
		s.Places[i] = Place{Binary: *w.Binary, Addr: at}
	}
	s.setExact()
	return s, checkStack(&s.Stack)
}

func encodeLook(l *Look) (*lookLine, error) {
	facts, err := normalFacts(l.Facts)
	if err != nil {
		return nil, err
	}
	for k, v := range facts {
		facts[k] = encodeFact(v)
	}
	if err := checkVariables(l.Variables); err != nil {
		return nil, err
	}
	t := normalTarget(Target{Request: l.Request, Requests: l.Requests})
	return &lookLine{Process: l.Process, Round: l.Round, US: l.At.Microseconds(), Observation: normalObservation(l.Observation),
		Request: t.Request, Requests: t.Requests, Facts: facts, Variables: normalVariables(l.Variables)}, nil
}

func (l *lookLine) look() (*Look, error) {
	for k, v := range l.Facts {
		n, err := decodeFact(v, maxDepth)
		if err != nil {
			return nil, fmt.Errorf("fact %q: %w", k, err)
		}
		l.Facts[k] = n
	}
	facts, err := normalFacts(l.Facts)
	if err != nil {
		return nil, err
	}
	if err := checkVariables(l.Variables); err != nil {
		return nil, err
	}
	if l.US < 0 || l.US > int64(maxStreamTime/time.Microsecond) {
		return nil, fmt.Errorf("look at %d µs: out of range", l.US)
	}
	t := normalTarget(Target{Request: l.Request, Requests: l.Requests})
	return &Look{Process: l.Process, Round: l.Round, At: time.Duration(l.US) * time.Microsecond, Observation: normalObservation(l.Observation),
		Request: t.Request, Requests: t.Requests, Facts: facts, Variables: normalVariables(l.Variables)}, nil
}

// maxStreamTime bounds how long a capture lasts.
const maxStreamTime = 10 * 365 * 24 * time.Hour

// decodeMany decodes one line strictly.
func decodeMany(b []byte) (*manyLine, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	d.UseNumber()
	l := manyLine{}
	if err := d.Decode(&l); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the line is empty")
		}
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the JSON object")
	}
	n := 0
	for _, there := range []bool{l.Schema != "", l.Binary != nil, l.Process != nil, l.Stack != nil, l.Event != nil,
		l.Look != nil, l.Failure != nil, l.Gone != nil, l.End != nil} {
		if there {
			n++
		}
	}
	if n != 1 || (l.Header != nil) != (l.Schema != "") {
		return nil, fmt.Errorf("a line is one of header, binary, process, stack, event, look, failure, gone and end; this one has %d of them", n)
	}
	return &l, nil
}
