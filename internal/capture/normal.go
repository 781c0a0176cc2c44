package capture

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/phpwhy/phpwhy/internal/stack"
)

// Normalize brings a capture into the form that it has after it was written
// and read, so that matching it live and matching its file give the same
// findings: valid UTF-8, microseconds, interned stacks, facts of the types
// bool, int64, uint64 (beyond int64), float64, string, []any and map[string]any.
// The error says what cannot be written.
func (c *Capture) Normalize() error {
	facts, err := normalFacts(c.Facts)
	if err != nil {
		return err
	}
	var in Interner
	ids := make([]int, len(c.Stacks))
	for i := range c.Stacks {
		if err := checkStack(&c.Stacks[i]); err != nil {
			return fmt.Errorf("stack %d: %w", i, err)
		}
		ids[i], _ = in.Add(c.Stacks[i])
	}
	var events []Event
	for i, e := range c.Events {
		if err := checkEvent(&e, len(ids)); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
		e.Stack = ids[e.Stack]
		events = append(events, normalEvent(e))
	}
	if err := checkVariables(c.Variables); err != nil {
		return err
	}
	c.Variables = normalVariables(c.Variables)
	c.Target = normalTarget(c.Target)
	c.Observation = normalObservation(c.Observation)
	c.Stacks, c.Events, c.Facts = in.Stacks(), events, facts
	return nil
}

// text keeps s when it is UTF-8 and otherwise spells each stray byte as \xNN.
// PHP identifiers and file names are bytes; JSON strings are not, and
// encoding/json would turn every such byte into the same U+FFFD.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[0])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

func normalTarget(t Target) Target {
	for _, s := range []*string{&t.Cmdline, &t.Exe, &t.PHPVersion, &t.SAPI, &t.Libc, &t.Symbols, &t.Layout} {
		*s = text(*s)
	}
	if t.Request != nil {
		r := *t.Request
		r.Method, r.URI, r.Script = text(r.Method), text(r.URI), text(r.Script)
		t.Request = &r
	}
	requests := make([]ThreadRequest, len(t.Requests))
	for i, r := range t.Requests {
		r.Method, r.URI, r.Script = text(r.Method), text(r.URI), text(r.Script)
		requests[i] = r
	}
	if t.Requests = requests; len(requests) == 0 {
		t.Requests = nil
	}
	return t
}

// normalObservation makes its lists present: they are arrays in every report.
func normalObservation(o Observation) Observation {
	o.Engine, o.Ended = text(o.Engine), text(o.Ended)
	b := make([]Breakpoint, len(o.Breakpoints))
	for i, p := range o.Breakpoints {
		b[i] = Breakpoint{Symbol: text(p.Symbol), Module: text(p.Module), Addr: text(p.Addr), Hits: p.Hits}
	}
	n := make([]string, len(o.Notes))
	for i, s := range o.Notes {
		n[i] = text(s)
	}
	o.Breakpoints, o.Notes = b, n
	return o
}

func normalEvent(e Event) Event {
	e.At = e.At.Truncate(time.Microsecond)
	e.Symbol = text(e.Symbol)
	if len(e.Args) == 0 {
		e.Args = nil
	}
	return e
}

// normalStack copies the frames, so that a caller may reuse its buffer.
func normalStack(s stack.Stack) stack.Stack {
	fs := make([]stack.Frame, len(s.Frames))
	for i := range s.Frames {
		fs[i] = normalFrame(s.Frames[i])
	}
	return stack.Stack{Frames: fs, End: s.End, Error: text(s.Error)}
}

// normalFrame drops the fields that mean nothing for the frame's kind.
func normalFrame(f stack.Frame) stack.Frame {
	n := stack.Frame{Kind: f.Kind, Function: text(f.Function), File: text(f.File), Line: f.Line}
	if f.Kind == stack.PHP {
		n.Class, n.Internal, n.Opcode, n.Defined = text(f.Class), f.Internal, text(f.Opcode), max(0, f.Defined)
		n.Values = normalValues(f.Values)
		return n
	}
	n.Raw, n.Module, n.PC, n.Offset = text(f.Raw), text(f.Module), f.PC, f.Offset
	n.Inlined, n.How = f.Inlined, text(f.How)
	for _, a := range f.Args {
		n.Args = append(n.Args, stack.Arg{Name: text(a.Name), Value: text(a.Value)})
	}
	return n
}

// normalValues keeps apart that there are none and that nobody asked.
func normalValues(vs []stack.Value) []stack.Value {
	if vs == nil {
		return nil
	}
	out := make([]stack.Value, len(vs))
	for i, v := range vs {
		out[i] = stack.Value{Name: text(v.Name), Kind: text(v.Kind), Type: text(v.Type), Value: text(v.Value), Redacted: v.Redacted}
	}
	return out
}

func normalVariables(vs []Variable) []Variable {
	var out []Variable
	for _, v := range vs {
		for _, s := range []*string{&v.Var, &v.At, &v.First, &v.Last, &v.Trend} {
			*s = text(*s)
		}
		out = append(out, v)
	}
	return out
}

func checkVariables(vs []Variable) error {
	if len(vs) > MaxVars {
		return overLimit("variables", MaxVars)
	}
	return nil
}

func checkStack(s *stack.Stack) error {
	if len(s.Frames) > MaxFrames {
		return overLimit("frames", MaxFrames)
	}
	if s.End != stack.Root && s.End != stack.Truncated {
		return fmt.Errorf("end %q: want %s or %s", s.End, stack.Root, stack.Truncated)
	}
	for i := range s.Frames {
		f := &s.Frames[i]
		if f.Kind != stack.Native && f.Kind != stack.PHP {
			return fmt.Errorf("frame %d of kind %q: want %s or %s", i, f.Kind, stack.Native, stack.PHP)
		}
		if len(f.Args) > MaxArgs {
			return fmt.Errorf("frame %d: %w", i, overLimit("arguments", MaxArgs))
		}
		if len(f.Values) > MaxValues {
			return fmt.Errorf("frame %d: %w", i, overLimit("values", MaxValues))
		}
	}
	return nil
}

// checkEvent checks an event that points into n stacks.
func checkEvent(e *Event, n int) error {
	switch {
	case e.Kind != Stop && e.Kind != Sample:
		return fmt.Errorf("event of kind %q: want %s or %s", e.Kind, Stop, Sample)
	case e.At < 0:
		return fmt.Errorf("event at %v: before the observation began", e.At)
	case len(e.Args) > MaxArgs:
		return overLimit("arguments", MaxArgs)
	case e.Stack < 0 || e.Stack >= n:
		return fmt.Errorf("event points at stack %d, which is not there", e.Stack)
	}
	return nil
}

func normalFacts(facts map[string]any) (map[string]any, error) {
	if len(facts) > MaxFacts {
		return nil, overLimit("facts", MaxFacts)
	}
	out := make(map[string]any, len(facts))
	for k, v := range facts {
		if !utf8.ValidString(k) {
			return nil, fmt.Errorf("fact %q: its name is not UTF-8", k)
		}
		n, err := normalFact(v, maxDepth)
		if err != nil {
			return nil, fmt.Errorf("fact %q: %w", k, err)
		}
		out[k] = n
	}
	return out, nil
}

func normalFact(v any, depth int) (any, error) {
	switch v := v.(type) {
	case bool, int64:
		return v, nil
	case string:
		return text(v), nil
	case int:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case uint32:
		return int64(v), nil
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v), nil
		}
		return v, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%v is no measurement; leave the fact out", v)
		}
		return v, nil
	case []string:
		out := make([]any, len(v))
		for i, s := range v {
			out[i] = text(s)
		}
		return out, nil
	case []any:
		return normalList(v, depth)
	case map[string]any:
		return normalMap(v, depth)
	}
	return nil, fmt.Errorf("type %T has no place in a capture", v)
}

var errDepth = errors.New("lists and maps are nested too deeply")

func normalList(v []any, depth int) (any, error) {
	if depth == 0 {
		return nil, errDepth
	}
	out := make([]any, len(v))
	for i, e := range v {
		n, err := normalFact(e, depth-1)
		if err != nil {
			return nil, err
		}
		out[i] = n
	}
	return out, nil
}

func normalMap(v map[string]any, depth int) (any, error) {
	if depth == 0 {
		return nil, errDepth
	}
	out := make(map[string]any, len(v))
	for k, e := range v {
		if !utf8.ValidString(k) {
			return nil, fmt.Errorf("%q: the name is not UTF-8", k)
		}
		n, err := normalFact(e, depth-1)
		if err != nil {
			return nil, err
		}
		out[k] = n
	}
	return out, nil
}
