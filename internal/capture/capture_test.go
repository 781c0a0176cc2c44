package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func written(t testing.TB, c *Capture) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestACaptureComesBackAsItWasWritten(t *testing.T) {
	want := sampleCapture()
	got, err := Read(bytes.NewReader(written(t, want)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestTheFormatStaysReadableToOthers pins the lines that other tools and older
// versions of this one read.
func TestTheFormatStaysReadableToOthers(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(string(written(t, sampleCapture()))), "\n")
	for i, want := range []string{
		`{"schema":"phpwhy/capture/v1","target":{"pid":4242,"cmdline":"php -n report.php <a&b>",`,
		`{"stack":{"id":0,"frames":[{"kind":"native","function":"mremap","raw":"__GI___mremap",`,
		`{"stack":{"id":1,`,
		`{"stack":{"id":2,"frames":[],"end":"truncated","error":"no CFI at 0x1"}}`,
		`{"event":{"t_us":1000,"kind":"stop","tid":4242,"symbol":"mremap","args":["0x7fa5f4c00000","0x2e59000","0xffffffffffffffff","0x0"],"stack":0}}`,
		`{"event":{"t_us":2000,"kind":"stop","tid":4242,"symbol":"mremap","args":["0x1"],"stack":1}}`,
		`{"event":{"t_us":3000,"kind":"sample","tid":4243,"stack":2}}`,
		`{"facts":{"fd.list":[{"fd":3,"peer":"10.0.0.1:3306"}],"php.zts":false,"proc.cpu_pct":50.0,"proc.rss":4611686018427387905,"proc.state":"R","proc.top":18446744073709551615}}`,
		`{"end":{"observation":{"engine":"hwbp",`,
	} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d does not begin with\n%s\nin\n%s", i+1, want, strings.Join(lines, "\n"))
		}
	}
}

func TestBytesThatAreNoUTF8StayApart(t *testing.T) {
	a, b := concatStack(6), concatStack(6)
	a.Frames[4].Function, b.Frames[4].Function = "caf\xe9", "caf\xe8"
	c := &Capture{Stacks: []stack.Stack{a, b, a}, Events: []Event{{Kind: Stop, Stack: 2}, {Kind: Stop, Stack: 1}}}
	got, err := Read(bytes.NewReader(written(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Stacks) != 2 || got.Stacks[0].Frames[4].Function != `caf\xe9` || got.Stacks[1].Frames[4].Function != `caf\xe8` {
		t.Errorf("stacks: %+v", got.Stacks)
	}
	if got.Events[0].Stack != 0 || got.Events[1].Stack != 1 {
		t.Errorf("events point at %d and %d, want 0 and 1", got.Events[0].Stack, got.Events[1].Stack)
	}
}

func TestReadRefusesWhatItCannotTrust(t *testing.T) {
	const (
		head  = `{"schema":"phpwhy/capture/v1","target":{"pid":1}}` + "\n"
		st    = `{"stack":{"id":0,"frames":[],"end":"root","error":""}}` + "\n"
		facts = `{"facts":{}}` + "\n"
		end   = `{"end":{"observation":{"engine":"none"}}}` + "\n"
	)
	for _, tt := range []struct {
		name, in, want string
		is             error
	}{
		{"nothing at all", "", "the file is empty", ErrTruncated},
		{"another version", `{"schema":"phpwhy/capture/v2","target":{}}` + "\n", `line 1: is a capture of many processes (phpwhy/capture/v2)`, ErrMany},
		{"a newer version", `{"schema":"phpwhy/capture/v9","target":{}}` + "\n", `line 1: was written by a newer phpwhy (phpwhy/capture/v9)`, ErrNewer},
		{"a report", `{"schema":"phpwhy/report/v1","target":{},"findings":[]}` + "\n", `unknown field "findings"`, nil},
		{"no header", st + facts + end, "the first line has no schema", ErrSchema},
		{"a header without target", `{"schema":"phpwhy/capture/v1"}` + "\n", "the header has no target", nil},
		{"an unknown kind of line", head + `{"frob":{}}` + "\n", `line 2: json: unknown field "frob"`, nil},
		{"an unknown field of a frame", head + `{"stack":{"id":0,"frames":[{"kind":"php","pc":"0x1"}],"end":"root"}}` + "\n", `unknown field "pc"`, nil},
		{"two kinds in one line", head + `{"stack":{"id":0,"end":"root"},"facts":{}}` + "\n", "has 2 of them", nil},
		{"an empty line", head + "\n" + facts + end, "line 2: the line is empty", nil},
		{"two objects in one line", head + `{"facts":{}} {}` + "\n", "text after the JSON object", nil},
		{"broken JSON inside", head + "{\n" + facts + end, "line 2: ", nil},
		{"the same stack id twice", head + st + st, "line 3: stack 0 is there already", nil},
		{"an event before its stack", head + `{"event":{"t_us":1,"kind":"stop","tid":1,"stack":0}}` + "\n" + st, "line 2: event points at stack 0", nil},
		{"an event of an unknown kind", head + st + `{"event":{"t_us":1,"kind":"trap","tid":1,"stack":0}}` + "\n", `event of kind "trap"`, nil},
		{"an event before the beginning", head + st + `{"event":{"t_us":-9223372036854775808,"kind":"stop","tid":1,"stack":0}}` + "\n", "before the observation began", nil},
		{"an event beyond all time", head + st + `{"event":{"t_us":9223372036854775807,"kind":"stop","tid":1,"stack":0}}` + "\n", "out of range", nil},
		{"an argument over 64 bits", head + st + `{"event":{"t_us":1,"kind":"stop","tid":1,"args":["0x10000000000000000"],"stack":0}}` + "\n", "value out of range", nil},
		{"an argument that is no number", head + st + `{"event":{"t_us":1,"kind":"stop","tid":1,"args":["1_0"],"stack":0}}` + "\n", "invalid syntax", nil},
		{"a stack with an unknown end", head + `{"stack":{"id":0,"end":"cliff"}}` + "\n", `end "cliff"`, nil},
		{"a frame of no kind", head + `{"stack":{"id":0,"frames":[{}],"end":"root"}}` + "\n", "want native or php", nil},
		{"a null frame", head + `{"stack":{"id":0,"frames":[null],"end":"root"}}` + "\n", "want native or php", nil},
		{"too many arguments", head + st + `{"event":{"t_us":1,"kind":"stop","tid":1,"args":[` + strings.Repeat(`"0",`, MaxArgs) + `"0"],"stack":0}}` + "\n", "more than 64 arguments", ErrLimit},
		{"a fact that is null", head + `{"facts":{"proc.rss":null}}` + "\n", "null is no evidence", nil},
		{"a fact beyond float64", head + `{"facts":{"x":1e999}}` + "\n", "out of range", nil},
		{"a fact nested deeply", head + `{"facts":{"x":` + strings.Repeat("[", 9) + strings.Repeat("]", 9) + "}}\n", "nested too deeply", nil},
		{"two facts lines", head + facts + facts + end, "line 3: a second facts line", nil},
		{"an end without facts", head + end, "without a facts line", nil},
		{"text after the end", head + facts + end + "{}\n", "text after the end line", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Read(strings.NewReader(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v is not %v", err, tt.is)
			}
			if c != nil {
				t.Errorf("a refused file gave %+v", c)
			}
			var le *LineError
			if !errors.As(err, &le) || le.Line == 0 {
				t.Errorf("error %v has no line", err)
			}
		})
	}
}

func TestReadIsBounded(t *testing.T) {
	data := written(t, sampleCapture())
	for _, tt := range []struct {
		name string
		set  func(*limits)
		want string
	}{
		{"bytes of a line", func(l *limits) { l.line = 500 }, "line 2: over the limit: more than 500 bytes in a line"},
		{"bytes of a capture", func(l *limits) { l.bytes = 1000 }, "more than 1000 bytes in a capture"},
		{"stacks", func(l *limits) { l.stacks = 2 }, "line 4: over the limit: more than 2 stacks"},
		{"events", func(l *limits) { l.events = 2 }, "line 7: over the limit: more than 2 events"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(bytes.NewReader(data))
			tt.set(&r.lim)
			_, err := r.Next()
			if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("after a final error: %v", again)
			}
		})
	}
}

func TestAFileCutAnywhereGivesWhatIsReadable(t *testing.T) {
	want := sampleCapture()
	data := written(t, want)
	headerEnd := bytes.IndexByte(data, '\n')
	lastEnd := len(data) - 1 // without the last newline the file is still whole
	for n := range data {
		c, err := Read(bytes.NewReader(data[:n]))
		switch {
		case n >= lastEnd:
			if err != nil {
				t.Errorf("cut at %d of %d: %v", n, len(data), err)
			}
			continue
		case !errors.Is(err, ErrTruncated):
			t.Fatalf("cut at %d of %d: error %v", n, len(data), err)
		case (c != nil) != (n >= headerEnd):
			t.Fatalf("cut at %d, header ends at %d: capture %v", n, headerEnd, c)
		case c == nil:
			continue
		}
		if d := cmp.Diff(want.Stacks[:len(c.Stacks)], append([]stack.Stack{}, c.Stacks...)); d != "" {
			t.Fatalf("cut at %d: %s", n, d)
		}
		if d := cmp.Diff(want.Events[:len(c.Events)], append([]Event{}, c.Events...)); d != "" {
			t.Fatalf("cut at %d: %s", n, d)
		}
		if c.Observation.Ended != "truncated" || c.Observation.Stops+c.Observation.Samples != len(c.Events) {
			t.Fatalf("cut at %d: observation %+v of %d events", n, c.Observation, len(c.Events))
		}
	}
}

func TestFilesThatWereAppendedAreReadOneByOne(t *testing.T) {
	data := written(t, sampleCapture())
	cut := data[:bytes.LastIndex(data, []byte(`{"end"`))]
	r := NewReader(bytes.NewReader(bytes.Join([][]byte{data, cut, data}, nil)))
	for i, truncated := range []bool{false, true, false} {
		c, err := r.Next()
		if errors.Is(err, ErrTruncated) != truncated || (err != nil) != truncated {
			t.Errorf("capture %d: error %v", i, err)
		}
		if c == nil || len(c.Events) != 3 {
			t.Errorf("capture %d: %+v", i, c)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
	if _, err := Read(bytes.NewReader(append(data, data...))); err == nil {
		t.Error("Read of two captures gave no error")
	}
}

func TestWriteRefusesWhatCouldNotBeRead(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*Capture)
		want string
	}{
		{"an event without its stack", func(c *Capture) { c.Events[1].Stack = 9 }, "event 1: event points at stack 9"},
		{"an event of no kind", func(c *Capture) { c.Events[0].Kind = "" }, `event 0: event of kind ""`},
		{"a stack of no end", func(c *Capture) { c.Stacks[0].End = "" }, "stack 0: end"},
		{"a frame of no kind", func(c *Capture) { c.Stacks[0].Frames[2].Kind = "" }, "stack 0: frame 2 of kind"},
		{"a stack too deep", func(c *Capture) { c.Stacks[0].Frames = make([]stack.Frame, MaxFrames+1) }, "more than 65536 frames"},
		{"a fact that is no number", func(c *Capture) { c.Facts["proc.cpu_pct"] = math.NaN() }, `fact "proc.cpu_pct": NaN`},
		{"a fact of a strange type", func(c *Capture) { c.Facts["x"] = time.Second }, "type time.Duration"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := sampleCapture()
			tt.edit(c)
			if err := Write(io.Discard, c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Write: %v, want %q", err, tt.want)
			}
			if err := c.Normalize(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Normalize: %v, want %q", err, tt.want)
			}
		})
	}
}

type brokenPipe struct{ room int }

func (w *brokenPipe) Write(p []byte) (int, error) {
	if w.room -= len(p); w.room < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestWriterKeepsItsFirstError(t *testing.T) {
	w, err := NewWriter(&brokenPipe{room: 300}, sampleCapture().Target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Stack(concatStack(1)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("Flush: %v", err)
	}
	if err := w.End(nil, Observation{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("End: %v", err)
	}
}

func TestInternerIgnoresArgumentsOnly(t *testing.T) {
	base := concatStack(6)
	for _, tt := range []struct {
		name string
		edit func(*stack.Stack)
		same bool
	}{
		{"nothing", func(s *stack.Stack) {}, true},
		{"arguments", func(s *stack.Stack) { s.Frames[0].Args = []stack.Arg{{Name: "old_len", Value: "1"}} }, true},
		{"a line", func(s *stack.Stack) { s.Frames[4].Line++ }, false},
		{"a pc", func(s *stack.Stack) { s.Frames[1].PC++ }, false},
		{"a module", func(s *stack.Stack) { s.Frames[1].Module = "x" }, false},
		{"a class", func(s *stack.Stack) { s.Frames[4].Class = "A" }, false},
		{"an opcode", func(s *stack.Stack) { s.Frames[4].Opcode = "ZEND_CONCAT" }, false},
		{"how a frame was found", func(s *stack.Stack) { s.Frames[3].How = "tail-call" }, false},
		{"the end", func(s *stack.Stack) { s.End = stack.Truncated }, false},
		{"the error", func(s *stack.Stack) { s.Error = "x" }, false},
		{"a frame less", func(s *stack.Stack) { s.Frames = s.Frames[1:] }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var in Interner
			in.Add(base)
			s := concatStack(6)
			tt.edit(&s)
			id, added := in.Add(s)
			if added == tt.same || (id == 0) != tt.same {
				t.Errorf("Add: id %d, added %v; want the same stack: %v", id, added, tt.same)
			}
		})
	}
}

func TestInternerCopiesWhatItKeeps(t *testing.T) {
	var in Interner
	s := concatStack(6)
	in.Add(s)
	s.Frames[0].Function, s.Frames[0].Args[0].Value = "overwritten", "overwritten"
	if d := cmp.Diff(concatStack(6), in.Stacks()[0]); d != "" {
		t.Error(d)
	}
}

// randomCapture draws captures that use the whole range of each field.
func randomCapture(r *rand.Rand) *Capture {
	word := func() string {
		return []string{"", "f", "caf\xe9", "\x00\x1b[31m", "\u2028<>&", "A\\B", strings.Repeat("x", r.IntN(300)), "\xff\xfe"}[r.IntN(8)]
	}
	c := &Capture{Target: Target{PID: r.Int(), Cmdline: word(), Exe: word(), ZTS: r.IntN(2) == 0}, Facts: map[string]any{}}
	if r.IntN(2) == 0 {
		c.Target.Request = &Request{URI: word(), AgeMS: new(r.Int64())}
	}
	for range r.IntN(6) {
		s := stack.Stack{End: []stack.End{stack.Root, stack.Truncated}[r.IntN(2)], Error: word()}
		for range r.IntN(8) {
			f := stack.Frame{Kind: stack.Native, Function: word(), Raw: word(), Module: word(), PC: remote.Addr(r.Uint64()), Offset: r.Uint64(),
				Inlined: r.IntN(2) == 0, How: word(), Class: word()}
			if r.IntN(2) == 0 {
				f.Kind = stack.PHP
			}
			for range r.IntN(3) {
				f.Args = append(f.Args, stack.Arg{Name: word(), Value: word()})
			}
			s.Frames = append(s.Frames, f)
		}
		c.Stacks = append(c.Stacks, s)
	}
	for range r.IntN(20) {
		if len(c.Stacks) == 0 {
			break
		}
		e := Event{At: time.Duration(r.Int64()), Kind: []EventKind{Stop, Sample}[r.IntN(2)], TID: r.Int(), Symbol: word(), Stack: r.IntN(len(c.Stacks))}
		for range r.IntN(7) {
			e.Args = append(e.Args, r.Uint64()>>r.IntN(64))
		}
		c.Events = append(c.Events, e)
	}
	for i, v := range []any{true, int64(r.Uint64()), r.Uint64(), r.NormFloat64() * 1e300, float64(r.IntN(100)), word(), r.IntN(9),
		[]string{word(), word()}, map[string]any{"a": []any{1.0, -5, math.Copysign(0, -1)}}} {
		if r.IntN(2) == 0 {
			c.Facts[fmt.Sprint("f", i)] = v
		}
	}
	return c
}

func TestEveryWritableCaptureComesBackInNormalForm(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 500 {
		c := randomCapture(r)
		data := written(t, c)
		got, err := Read(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("capture %d: %v\n%s", i, err, data)
		}
		if err := c.Normalize(); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Fatalf("capture %d: %s", i, d)
		}
	}
}

// FuzzRead: Read never panics, and whatever it accepts (or salvages) is
// written and read back equal.
func FuzzRead(f *testing.F) {
	f.Add(written(f, sampleCapture()))
	f.Add([]byte(`{"schema":"phpwhy/capture/v1","target":{"pid":1}}` + "\n" + `{"facts":{"a":[1e5,{"b":-0}]}}` + "\n" + `{"end":{}}`))
	f.Add([]byte(`{"schema":"phpwhy/capture/v1","target":{}}` + "\n" + `{"stack":{"id":-7,"frames":[{"kind":"php"}],"end":"root"}}` + "\n" + `{"event":{"kind":"stop","args":["9"],"stack":-7}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Read(bytes.NewReader(data))
		if c == nil {
			if err == nil {
				t.Fatal("neither capture nor error")
			}
			return
		}
		var b bytes.Buffer
		if err := Write(&b, c); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := Read(&b)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if d := cmp.Diff(c, again); d != "" {
			t.Fatal(d)
		}
	})
}

func TestTemplateNamesStayLegibleInTheFile(t *testing.T) {
	s := concatStack(6)
	s.Frames[2].Function = "std::vector<T>::push(T&&)"
	if data := written(t, &Capture{Stacks: []stack.Stack{s}}); !bytes.Contains(data, []byte(`"function":"std::vector<T>::push(T&&)"`)) {
		t.Errorf("escaped for HTML: %s", data)
	}
}
