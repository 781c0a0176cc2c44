package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

func TestTheBuiltInPackLoadsWithoutProblems(t *testing.T) {
	s, ps := Load(builtin.FS)
	for _, p := range ps {
		t.Error(p)
	}
	for _, id := range []string{"mem.string-concat", "mem.array-append", "mem.recursion", "cpu.php-loop"} {
		if s.Rule(id) == nil {
			t.Errorf("no rule %s", id)
		}
	}
}

// TestEveryProblemOfAFileIsReportedWithItsPlace reads testdata/*.bad.yaml; each
// problem is announced by a comment "# want LINE:COL CODE text".
func TestEveryProblemOfAFileIsReportedWithItsPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(b)) {
				if w, ok := strings.CutPrefix(strings.TrimSpace(line), "# want "); ok {
					want = append(want, w)
				}
			}
			r, ps := Parse("x.yaml", b)
			if r != nil {
				t.Error("the rule was accepted")
			}
			var got []string
			for _, p := range ps {
				got = append(got, fmt.Sprintf("%d:%d %s %s", p.Line, p.Col, p.Code, p.Msg))
			}
			if len(got) != len(want) {
				t.Fatalf("got %d problems, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
			}
			for i := range want {
				if !strings.HasPrefix(got[i], want[i]) {
					t.Errorf("got  %s\nwant %s", got[i], want[i])
				}
			}
		})
	}
}

const minimal = `schema: phpwhy/rule/v1
id: %s
title: t
severity: low
match: {php: user}
message: m
%s`

func TestARuleWithAProblemTakesNoOtherDown(t *testing.T) {
	s, ps := Load(fstest.MapFS{
		"good.yaml":   {Data: fmt.Appendf(nil, minimal, "a.good", "")},
		"bad.yaml":    {Data: fmt.Appendf(nil, minimal, "a.bad", "colour: red")},
		"c1.yaml":     {Data: fmt.Appendf(nil, minimal, "c.one", "supersedes: [c.two]")},
		"c2.yaml":     {Data: fmt.Appendf(nil, minimal, "c.two", "supersedes: [c.one]")},
		"again.yml":   {Data: fmt.Appendf(nil, minimal, "a.good", "")},
		"no.txt":      {Data: []byte("not a rule")},
		"x.test.yaml": {Data: []byte("not a rule either")},
	})
	if len(s.Rules()) != 1 || s.Rule("a.good") == nil {
		t.Errorf("%d rules were kept", len(s.Rules()))
	}
	codes := ""
	for _, p := range ps {
		codes += p.Code + " "
	}
	// again.yml comes first, so that good.yaml is the duplicate.
	if want := "E002 E010 E010 E003 "; codes != want {
		t.Errorf("problems %s, want %s: %v", codes, want, ps)
	}
}

// FuzzParse holds that no file makes the loader panic, and that every problem
// lies within the file.
func FuzzParse(f *testing.F) {
	for _, p := range []string{"builtin/mem.string-concat.yaml", "builtin/mem.recursion.yaml"} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	bad, _ := filepath.Glob("testdata/*.bad.yaml")
	for _, p := range bad {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ps := Parse("f.yaml", b)
		if (r == nil) == (len(ps) == 0) {
			t.Fatalf("rule %v with %d problems", r != nil, len(ps))
		}
		lines := strings.Count(string(b), "\n") + strings.Count(string(b), "\r") +
			strings.Count(string(b), "\u0085") + strings.Count(string(b), "\u2028") + strings.Count(string(b), "\u2029") + 2
		for _, p := range ps {
			if p.Line < 1 || p.Col < 1 || p.Line > lines {
				t.Fatalf("%v lies outside the file's %d lines", p, lines)
			}
		}
	})
}
