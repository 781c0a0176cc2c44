package export

import (
	"bufio"
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/pprof/profile"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// recorded is the model of captures that were recorded from real processes.
func recorded(t *testing.T, names ...string) *triage.Model {
	t.Helper()
	b := triage.NewBuilder()
	for _, n := range names {
		path := filepath.Join(testphp.Root(t), "rules/builtin/captures", n+".jsonl.zst")
		r, err := capture.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := b.Read(n, capture.NewStream(r)); err != nil {
			t.Fatal(err)
		}
	}
	return b.Model(nil, time.Now())
}

// hostile is a model whose every name is chosen to break a format.
func hostile() *triage.Model {
	names := []string{"a;b", "new\nline", "\x1b[31mred", "stray\xff", "ends in 12", " 7", "\u202egnp", `</script><img onerror=1>`, "", "a b;c 3\r\n"}
	var fs []stack.Frame
	for i, n := range names {
		fs = append(fs, stack.Frame{Kind: stack.Native, Function: n, Module: n, Raw: n, Offset: uint64(i), Inlined: i%2 == 0},
			stack.Frame{Kind: stack.PHP, Function: n, Class: n, File: n, Line: i - 1})
	}
	places := make([]triage.Place, len(fs))
	for i := range places {
		places[i] = triage.Place{Binary: i % 3, Addr: uint64(i)} // 1 and 2 are out of range
	}
	worker := triage.Worker{Host: 0, PID: 7, Pool: "p\n;", Group: 0, Request: &capture.Request{Method: "GET", URI: "/x\n?token=secret"},
		Findings: []triage.WorkerFinding{{Rule: "a\nb"}}}
	return &triage.Model{
		Summary: "s\n", Hosts: []triage.Host{{Name: "h\x00"}}, Binaries: []triage.Binary{{Path: "/usr/bin/php\n", BuildID: "abc"}},
		Workers: []triage.Worker{worker, worker}, Groups: []triage.Group{{Title: "t\x1b"}},
		Stacks: []triage.Stack{
			{Count: 5, Frames: fs, Places: places, Seen: []triage.Seen{{Worker: 0, Kind: capture.Stop, N: 2}, {Worker: 99, Kind: capture.Sample, N: 1}, {Worker: -1, Kind: "odd", N: 1}}},
			{Count: 3, Frames: nil, Seen: []triage.Seen{{Worker: 1, Kind: capture.Sample, N: 3}}},
			{Count: 0, Frames: fs[:1]},
		},
	}
}

func models(t *testing.T) map[string]*triage.Model {
	return map[string]*triage.Model{
		"hostile names": hostile(),
		"nothing":       {},
		"recorded": recorded(t, "concat-8.2-dwarf", "concat-8.2-stripped", "array-append-8.2-dwarf", "pcre-backtracking-8.2-dwarf",
			"fpm-idle-8.2-stripped", "sort-8.2-dwarf", "recursion-8.2-dwarf"),
	}
}

func events(m *triage.Model) int {
	n := 0
	for i := range m.Stacks {
		n += m.Stacks[i].Count
	}
	return n
}

// foldedLineRE is how flamegraph.pl takes a line apart.
var foldedLineRE = regexp.MustCompile(`^(.*)\s+?(\d+(?:\.\d*)?)$`)

func TestFoldedStacksAddUpAndKeepTheirDepth(t *testing.T) {
	for name, m := range models(t) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Folded(&out, m); err != nil {
				t.Fatal(err)
			}
			clean(t, out.Bytes())
			depths := map[[2]int]int{} // depth and PHP frames, to events
			for i := range m.Stacks {
				if s := &m.Stacks[i]; s.Count > 0 {
					php := 0
					for j := range s.Frames {
						if s.Frames[j].Kind == stack.PHP {
							php++
						}
					}
					depths[[2]int{max(1, len(s.Frames)), php}] += s.Count
				}
			}
			lines := bufio.NewScanner(&out)
			lines.Buffer(nil, 1<<24)
			for lines.Scan() {
				g := foldedLineRE.FindStringSubmatch(lines.Text())
				if g == nil {
					t.Fatalf("flamegraph.pl would not read %q", lines.Text())
				}
				n, err := strconv.Atoi(g[2])
				if err != nil {
					t.Fatal(err)
				}
				frames, php := strings.Split(g[1], ";"), 0
				for _, f := range frames {
					if f == "" {
						t.Errorf("a frame without a name in %q", lines.Text())
					}
					if strings.HasSuffix(f, phpMark) {
						php++
					}
				}
				depths[[2]int{len(frames), php}] -= n
			}
			for d, n := range depths {
				if n != 0 {
					t.Errorf("stacks of depth %d with %d PHP frames: %d events too few", d[0], d[1], n)
				}
			}
		})
	}
}

// clean checks that no byte would drive a terminal.
func clean(t *testing.T, b []byte) {
	t.Helper()
	if !utf8.Valid(b) {
		t.Error("not UTF-8")
	}
	for _, r := range string(b) {
		if unicode.IsControl(r) && r != '\n' || unicode.Is(unicode.Cf, r) {
			t.Fatalf("%U in the output", r)
		}
	}
}

func TestFoldedRootComesFirst(t *testing.T) {
	var out bytes.Buffer
	m := recorded(t, "concat-8.2-stripped")
	m.Stacks = m.Stacks[:1]
	if err := Folded(&out, m); err != nil {
		t.Fatal(err)
	}
	const want = "{main} (/srv/app/mem.string-concat.php:19) [php];buildReport (/srv/app/mem.string-concat.php:12) [php];execute_ex;"
	if s := out.String(); !strings.HasPrefix(s, "php8.2+0x") && !strings.HasPrefix(s, "_start;") || !strings.Contains(s, want) || !strings.Contains(s, ";mremap ") {
		t.Errorf("got %s", s)
	}
}

func TestFoldedDiffHasBothCounts(t *testing.T) {
	a, b := hostile(), hostile()
	b.Stacks[0].Count = 9
	b.Stacks = append(b.Stacks, triage.Stack{Count: 2, Frames: []stack.Frame{{Kind: stack.Native, Function: "new"}}})
	var out bytes.Buffer
	if err := FoldedDiff(&out, a, b); err != nil {
		t.Fatal(err)
	}
	s := out.String()
	if strings.Count(s, "\n") != 3 || !strings.Contains(s, " 5 9\n") || !strings.Contains(s, "[no frames] 3 3\n") || !strings.Contains(s, "new 0 2\n") {
		t.Errorf("got %s", s)
	}
}

func TestPprofIsValidAndAddsUp(t *testing.T) {
	for name, m := range models(t) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Pprof(&out, m); err != nil {
				t.Fatal(err)
			}
			p, err := profile.Parse(&out)
			if err != nil {
				t.Fatal(err)
			}
			clean(t, []byte(p.String()))
			sum, frames, want := int64(0), 0, 0
			for _, s := range p.Sample {
				sum += s.Value[0]
				if s.Value[1]+s.Value[2] > s.Value[0] {
					t.Errorf("%v: more stops and samples than events", s.Value)
				}
				for _, l := range s.Location {
					frames += len(l.Line) * int(s.Value[0])
				}
				for k, v := range s.Label {
					if strings.Contains(strings.Join(v, ""), "secret") {
						t.Errorf("the label %s has the query in it: %q", k, v)
					}
				}
			}
			for i := range m.Stacks {
				want += m.Stacks[i].Count * len(m.Stacks[i].Frames)
			}
			if sum != int64(events(m)) || frames != want {
				t.Errorf("%d events with %d frames, want %d with %d", sum, frames, events(m), want)
			}
		})
	}
}

func TestPprofKeepsBuildIDsAddressesAndInlining(t *testing.T) {
	m := &triage.Model{
		Binaries: []triage.Binary{{Path: "/usr/sbin/php-fpm8.2", BuildID: "c0ffee"}, {Path: "/lib/libc.so.6", BuildID: "beef"}},
		Hosts:    []triage.Host{{Name: "web1"}},
		Workers: []triage.Worker{{PID: 42, Pool: "www", Request: &capture.Request{Method: "GET", URI: "/a?b=c"},
			Findings: []triage.WorkerFinding{{Rule: "mem.string-concat"}}}},
		Stacks: []triage.Stack{{Count: 4, Seen: []triage.Seen{{Kind: capture.Stop, N: 4}},
			Frames: []stack.Frame{{Kind: stack.Native, Function: "mremap", Raw: "__GI___mremap"}, {Kind: stack.Native, Function: "inner", Inlined: true, File: "a.c", Line: 3},
				{Kind: stack.Native, Function: "outer", File: "b.c", Line: 9}, {Kind: stack.PHP, Class: "A", Function: "b", File: "/x.php", Line: 6}},
			Places: []triage.Place{{Binary: 1, Addr: 0x1000, Exact: true}, {Binary: 0, Addr: 0x2000}, {Binary: 0, Addr: 0x2000}, {Binary: -1}}}},
	}
	var out bytes.Buffer
	if err := Pprof(&out, m); err != nil {
		t.Fatal(err)
	}
	p, err := profile.Parse(&out)
	if err != nil {
		t.Fatal(err)
	}
	s := p.Sample[0]
	if len(p.Sample) != 1 || len(s.Location) != 3 {
		t.Fatalf("got %s", p)
	}
	leaf, mid, php := s.Location[0], s.Location[1], s.Location[2]
	if leaf.Address != 0x1000 || leaf.Mapping.BuildID != "beef" || leaf.Line[0].Function.SystemName != "__GI___mremap" {
		t.Errorf("leaf %+v", leaf)
	}
	// A return address is looked up one byte before.
	if mid.Address != 0x1fff || mid.Mapping.BuildID != "c0ffee" || len(mid.Line) != 2 || mid.Line[0].Function.Name != "inner" || mid.Line[1].Line != 9 {
		t.Errorf("inlined %+v", mid)
	}
	if f := php.Line[0]; php.Mapping != nil || f.Function.Name != "A::b [php]" || f.Function.Filename != "/x.php" || f.Line != 6 {
		t.Errorf("PHP %+v", php)
	}
	for k, want := range map[string]string{"pid": "42", "host": "web1", "pool": "www", "finding": "mem.string-concat", "uri": "/a", "kind": "stop"} {
		if got := s.Label[k]; len(got) != 1 || got[0] != want {
			t.Errorf("label %s is %q, want %q", k, got, want)
		}
	}
}

func TestSpeedscopeHoldsItsInvariants(t *testing.T) {
	for name, m := range models(t) {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Speedscope(&out, m); err != nil {
				t.Fatal(err)
			}
			clean(t, out.Bytes())
			var f speedscope
			d := json.NewDecoder(&out)
			d.DisallowUnknownFields()
			if err := d.Decode(&f); err != nil {
				t.Fatal(err)
			}
			if f.Schema != "https://www.speedscope.app/file-format-schema.json" || f.Active < 0 || f.Active >= len(f.Profiles) {
				t.Errorf("%s, active %d of %d", f.Schema, f.Active, len(f.Profiles))
			}
			for _, x := range f.Shared.Frames {
				if x.Name == "" {
					t.Error("a frame without a name")
				}
			}
			total := 0
			for i, p := range f.Profiles {
				if p.Type != "sampled" || p.Unit != "none" || p.Samples == nil || len(p.Samples) != len(p.Weights) {
					t.Fatalf("profile %q: %d samples, %d weights", p.Name, len(p.Samples), len(p.Weights))
				}
				sum := p.Start
				for _, w := range p.Weights {
					sum += w
				}
				if sum != p.End {
					t.Errorf("profile %q ends at %d, its weights at %d", p.Name, p.End, sum)
				}
				if i > 0 {
					total += p.End
				}
				for _, s := range p.Samples {
					for _, at := range s {
						if at < 0 || at >= len(f.Shared.Frames) {
							t.Fatalf("profile %q: there is no frame %d", p.Name, at)
						}
					}
				}
			}
			if f.Profiles[0].End != events(m) {
				t.Errorf("%d events, want %d", f.Profiles[0].End, events(m))
			}
			if name == "recorded" && total != events(m) {
				t.Errorf("the workers' profiles have %d events, want %d", total, events(m))
			}
		})
	}
}
