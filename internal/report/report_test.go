package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/rules"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

var update = flag.Bool("update", false, "write the golden files anew")

func textOf(t *testing.T, s scene) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, Build(s.capture, s.verdict), s.options); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func jsonOf(t *testing.T, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := JSON(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-update writes it anew): %s", path, d)
	}
}

func TestTextReadsAsInTheGoldenFiles(t *testing.T) {
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) { golden(t, s.name+".txt", []byte(textOf(t, s))) })
	}
}

func TestJSONIsAsInTheGoldenFiles(t *testing.T) {
	for _, s := range scenes() {
		switch s.name {
		case "concat-dwarf-colour", "doubtful-with-request", "hostile-names", "nothing-observed", "values":
			t.Run(s.name, func(t *testing.T) { golden(t, s.name+".json", jsonOf(t, Build(s.capture, s.verdict))) })
		}
	}
}

// TestPastedStacksHaveNoTimes reads what gdb and strace have printed elsewhere.
func TestPastedStacksHaveNoTimes(t *testing.T) {
	for file, want := range map[string]string{
		"recursion-8.2.36-stripped.gdb.txt": "from text: 1 stop, 0 samples",
		"concat-8.2.36-stripped.strace.txt": "from text: 5 stops, 0 samples",
	} {
		text, err := os.ReadFile("../../rules/testdata/bt/" + file)
		if err != nil {
			t.Fatal(err)
		}
		o, err := rules.ParseBacktrace(string(text))
		if err != nil {
			t.Fatal(err)
		}
		got := textOf(t, scene{capture: capture.Pasted(o)})
		if !strings.Contains(got, "\n"+want+"\n") || strings.Contains(got, "0 ms") {
			t.Errorf("%s: got\n%s\nwant %s", file, got, want)
		}
	}
}

// TestNoTextFromATargetActsOnTheTerminal looks at what was printed, not at how:
// every rune is printable, or the line's end, or the colour that was asked for.
func TestNoTextFromATargetActsOnTheTerminal(t *testing.T) {
	s := scene{capture: hostile(), verdict: Verdict{Findings: []Finding{hostileFinding()}}}
	values := withValues()
	s.capture.Variables = values.Variables
	s.capture.Stacks = append(s.capture.Stacks, values.Stacks...)
	for range 100 { // the most frequent is the one that is shown
		e := values.Events[0]
		e.Stack = len(s.capture.Stacks) - 1
		s.capture.Events = append(s.capture.Events, e)
	}
	lines := map[int]int{}
	for _, width := range []int{0, 1, 60} {
		for _, color := range []bool{false, true} {
			s.options = TextOptions{Color: color, Width: width}
			got := textOf(t, s)
			if color {
				for _, st := range []style{bold, dim, red, green, yellow, cyan, "0"} {
					got = strings.ReplaceAll(got, "\x1b["+string(st)+"m", "")
				}
			}
			for i, r := range got {
				if r == utf8.RuneError || r != '\n' && !strconv.IsPrint(r) {
					t.Fatalf("width %d, colour %v: %U at %d, after %q", width, color, r, i, got[max(0, i-60):i])
				}
			}
			if n := strings.Count(got, "\n"); lines[width] == 0 {
				lines[width] = n
			} else if n != lines[width] {
				t.Errorf("width %d: %d lines with colour, %d without", width, n, lines[width])
			}
		}
	}
	// A newline in a name adds no line.
	tame := hostile()
	b, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(textOf(t, scene{capture: tame}), `a\x1b[2J\nb\r\x07\x00c\x7f\u009b31md\x9b\xffe\u202ef\u2066g\u200bh\ufeffi\u2028j\U000e0041k\u00a0l`) {
		t.Errorf("%s is not spelt out", b)
	}
}

func TestJSONHasNoBytesThatATerminalObeys(t *testing.T) {
	r := Build(hostile(), Verdict{Findings: []Finding{hostileFinding()}})
	got := jsonOf(t, r)
	for i, c := range string(bytes.TrimSuffix(got, []byte("\n"))) {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0x202e || c == 0x2066 || c == 0xfeff || c == 0x200b || c == 0xe0041 {
			t.Fatalf("%U at %d", c, i)
		}
	}
	var back Report
	if err := json.Unmarshal(got, &back); err != nil {
		t.Fatal(err)
	}
	want := strings.ToValidUTF8(evil, "\ufffd")
	// encoding/json replaces byte by byte.
	want = strings.Replace(want, "d\ufffde", "d\ufffd\ufffde", 1)
	if back.Findings[0].Message != want {
		t.Errorf("message %q, want %q", back.Findings[0].Message, want)
	}
}

func TestStacksAreCountedByKindAndSortedByCount(t *testing.T) {
	c := &capture.Capture{Stacks: []stack.Stack{{End: stack.Root}, {End: stack.Root, Error: "b"}}}
	for _, e := range []struct {
		stack, tid int
		kind       capture.EventKind
	}{{0, 5, capture.Stop}, {1, 9, capture.Sample}, {1, 3, capture.Sample}, {1, 9, capture.Sample}, {1, 4, capture.Stop}, {0, 5, capture.Stop}, {7, 5, capture.Stop}} {
		c.Events = append(c.Events, capture.Event{Stack: e.stack, TID: e.tid, Kind: e.kind})
	}
	r := Build(c, Verdict{})
	var got []Stack
	for _, s := range r.Stacks {
		s.Frames = nil
		got = append(got, s)
	}
	b, a := stack.Stack{End: stack.Root, Error: "b"}, stack.Stack{End: stack.Root}
	want := []Stack{{3, capture.Sample, []int{3, 9}, b}, {2, capture.Stop, []int{5}, a}, {1, capture.Stop, []int{4}, b}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"events left out because they point at no stack: 1"}, r.Notes); d != "" {
		t.Error(d)
	}
}

func TestBuildLeavesItsInputsAlone(t *testing.T) {
	c, v := base(stripped(), 3, 1), Verdict{Findings: []Finding{concat()}, Undetermined: []Undetermined{{Rule: "x"}}}
	c.Observation.Notes = append(make([]string, 0, 9), "n")
	r := Build(c, v)
	r.Findings[0].Rule, r.Stacks[0].Frames[0].Function, r.Notes[0] = "changed", "changed", "changed"
	if v.Findings[0].Rule != "mem.string-concat" || c.Stacks[0].Frames[0].Function != "mremap" || c.Observation.Notes[0] != "n" || v.Undetermined[0].Missing != nil {
		t.Error("a change to the report reached what it was built from")
	}
}

func TestNumbersReadWell(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{number(0), "0"}, {number(999), "999"}, {number(1000), "1,000"}, {number(-1234567), "-1,234,567"}, {number(uint64(1<<64 - 1)), "18,446,744,073,709,551,615"},
		{size(0), "0 bytes"}, {size(4096), "4,096 bytes"}, {size(10 << 10), "10.0 KiB"}, {size(1<<20 - 1), "1.0 MiB"}, {size(35 << 20), "35.0 MiB"}, {size(1<<64 - 1), "16.0 EiB"},
		{duration(0), "0 ms"}, {duration(120), "0.12 ms"}, {duration(9800), "9.8 ms"}, {duration(3_000_000), "3.0 s"}, {duration(412_000_000), "6 min"}, {duration(7_200_000_000), "2 h"},
		{count(1, "stop"), "1 stop"}, {count(1200, "stop"), "1,200 stops"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func TestProseWrapsAtItsWidth(t *testing.T) {
	var b bytes.Buffer
	p := newPrinter(&b, TextOptions{Width: 20})
	p.prose("  fix: ", plain, "one two three four five averyveryverylongword six")
	_ = p.w.Flush()
	want := "  fix: one two three\n       four five\n       averyveryverylongword\n       six\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestCyclesAreFoldedAndNumbersKept(t *testing.T) {
	n := func(name string, pc remote.Addr) stack.Frame { return native(name, "php", pc) }
	p := func(name string) stack.Frame { return user(name, "/f.php", 1, "") }
	repeat := func(times int, fs ...stack.Frame) (out []stack.Frame) {
		for range times {
			out = append(out, fs...)
		}
		return out
	}
	for _, tt := range []struct {
		name   string
		frames []stack.Frame
		want   string
	}{
		{"no frames", nil, ""},
		{"twice is no cycle", repeat(2, p("f")), "f f"},
		{"one function", append(repeat(3, p("f")), p("g")), "f×3 g"},
		{"a C function", append(repeat(100, n("match", 1)), n("main", 2)), "#0match×100 #100main"},
		{"another call site of it", []stack.Frame{n("match", 1), n("match", 2), n("match", 3)}, "#0match #1match #2match"},
		{"two that call each other, ending half way", append(append(repeat(5, p("a"), p("b")), p("a")), p("{main}")), "a b …2×5 a {main}"},
		{"a callback", append(repeat(50, n("execute_ex", 1), p("f"), n("zend_call_function", 2), n("zif_array_map", 3), p("array_map")), n("main", 4)),
			"#0execute_ex f #1zend_call_function #2zif_array_map array_map …5×50 #150main"},
		{"too long a cycle", repeat(3, manyFrames(maxPeriod+1)...), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			total := 0
			for _, r := range rowsOf(tt.frames) {
				switch {
				case r.frame == nil:
					got = append(got, fmt.Sprintf("…%d×%d", r.cycle, r.repeat))
					total += r.cycle * (r.repeat - 1)
					continue
				case r.frame.Kind == stack.Native:
					got = append(got, fmt.Sprintf("#%d%s", r.number, r.frame.Function))
				default:
					got = append(got, r.frame.Function)
				}
				if r.repeat > 1 {
					got[len(got)-1] += fmt.Sprintf("×%d", r.repeat)
				}
				total += r.repeat
			}
			if total != len(tt.frames) {
				t.Errorf("the rows stand for %d frames of %d", total, len(tt.frames))
			}
			if tt.name == "too long a cycle" {
				if len(got) != len(tt.frames) {
					t.Errorf("folded to %q", got)
				}
				return
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
		})
	}
}

func manyFrames(n int) (fs []stack.Frame) {
	for i := range n {
		fs = append(fs, user(fmt.Sprint("f", i), "/f.php", i, ""))
	}
	return fs
}

type fullDisk struct{}

func (fullDisk) Write(p []byte) (int, error) { return 0, io.ErrShortWrite }

func TestAWriteErrorIsReturned(t *testing.T) {
	r := Build(base(stripped(), 1, 0), Verdict{})
	if err := Text(fullDisk{}, r, TextOptions{}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("Text: %v", err)
	}
	if err := JSON(fullDisk{}, r); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("JSON: %v", err)
	}
}

// TestTheAdviceOfOneLookIsWhatHelps: attach looks longer, and never at other workers.
func TestTheAdviceOfOneLookIsWhatHelps(t *testing.T) {
	longer := Undetermined{Rule: "a", Missing: []string{"proc.cpu_pct (needs: attach observes for a while; dump does not)"}}
	others := Undetermined{Rule: "b", Missing: []string{"proc.cpu_pct (needs: x)", "pool.workers (needs: y)"}}
	const attach, collect = "more than one look: 2; try phpwhy attach 4242\n", "the pool's other workers, too: 1; try phpwhy collect\n"
	for _, c := range []struct {
		name, engine string
		us           []Undetermined
		want, not    []string
	}{
		{"a longer look", "none", []Undetermined{longer, longer}, []string{attach}, []string{"collect"}},
		{"other workers", "none", []Undetermined{others}, []string{collect}, []string{"attach"}},
		{"either", "none", []Undetermined{longer, others, longer}, []string{attach, collect}, nil},
		{"of a core there is no more", fromCore, []Undetermined{longer, others}, []string{"more than one look: 1\n", "the pool's other workers, too: 1\n"}, []string{"; try"}},
	} {
		s := scene{capture: base(stripped(), 0, 1), verdict: Verdict{Undetermined: c.us}}
		s.capture.Target.PID, s.capture.Observation.Engine, s.capture.Observation.DurationMS = 4242, c.engine, 0
		text := textOf(t, s)
		for _, want := range c.want {
			if !strings.Contains(text, "  rules that want "+want) {
				t.Errorf("%s: no %q in %s", c.name, want, text)
			}
		}
		for _, not := range c.not {
			if strings.Contains(text, not) {
				t.Errorf("%s: %q in %s", c.name, not, text)
			}
		}
	}
}
