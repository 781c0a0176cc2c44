package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestACaseFailsForAReason(t *testing.T) {
	s := mustLoad(t,
		rule("a.match", "{in: stops, stack: leaf mremap as=c, php: user as=site}", "score: {base: 0.7}"),
		rule("a.unsure", "{in: stops, stack: leaf munmap}", "score: {base: 0.3}"),
		rule("a.undetermined", "{expr: pool.workers > 3}", ""),
		rule("a.other", "{stack: leaf mmap}", ""))
	observations := map[string]*Observation{
		"t/mremap": observe(seen{"mremap x php:run", 1, 0}), "t/mmap": observe(seen{"mmap x php:run", 1, 0}), "t/munmap": observe(seen{"munmap", 1, 0}),
		"t/broken": {Events: []Event{{Stack: 3}}},
	}
	open := func(path string) (*Observation, error) {
		if o := observations[path]; o != nil {
			return o, nil
		}
		return nil, errors.New("no such file")
	}
	for _, c := range []struct {
		rule, fields, want string // what each outcome says, "; " between; "" is ok
	}{
		{"a.match", `capture: mremap, expect: match, captures: {site: "*/run.php:3", c: mremap}, score: ">=0.7"`, ""},
		{"a.match", `capture: mremap, expect: match, score: "<=0.7"`, ""},
		{"a.match", `capture: mremap, expect: match, captures: {site: "*/run.php:4"}`, `site is "/srv/run.php:3", expected "*/run.php:4"`},
		{"a.match", `capture: mremap, expect: match, captures: {place: "*"}`, "nothing was captured as place"},
		{"a.match", `capture: mremap, expect: match, score: ">=0.8"`, "score is 0.70, expected >=0.8"},
		{"a.match", `capture: mremap, expect: no_match`, "a.match: UNEXPECTED match, score 0.70; match, expected no_match"},
		{"a.match", `capture: mmap, expect: no_match`, "a.other: UNEXPECTED match, score 0.50: m"},
		{"a.unsure", `capture: munmap, expect: match`, "it matches, but its score 0.30 is below 0.50"},
		{"a.undetermined", `capture: munmap, expect: undetermined`, ""},
		{"a.undetermined", `capture: munmap, expect: no_match`, "undetermined, expected no_match: it lacks pool.workers"},
		{"a.match", `capture: absent, expect: match`, "no such file"},
		{"a.match", `capture: broken, expect: match`, "event without a stack"},
		{"a.none", `capture: munmap, expect: match`, "no rule is called a.none"},
	} {
		t.Run(c.rule+" "+c.fields, func(t *testing.T) {
			cases, ps := LoadTests(fstest.MapFS{"t/x.test.yaml": {Data: fmt.Appendf(nil, "rule: %s\ncases:\n  - {%s}\n", c.rule, c.fields)}})
			if len(ps) > 0 {
				t.Fatal(ps)
			}
			var got []string
			for _, o := range s.RunTests(cases, open) {
				if o.Err == nil {
					continue
				}
				text := o.Err.Error()
				if strings.HasPrefix(text, "UNEXPECTED") {
					text = o.Rule + ": " + text
				}
				got = append(got, text)
			}
			if text := strings.Join(got, "; "); !strings.HasPrefix(text, c.want) || c.want == "" && text != "" {
				t.Errorf("got  %q\nwant %q", text, c.want)
			}
		})
	}
}

func TestATestFileIsReadStrictly(t *testing.T) {
	cases, ps := LoadTests(fstest.MapFS{
		"a.test.yaml": {Data: []byte("rule: a.b\ncases:\n  - {capture: x, expect: matched}\n  - {capture: x, expect: match, score: 0.8}\n  - {expect: match, scores: \">=1\"}\n  - {capture: x, expect: match, score: \"0.8\"}\n")},
		"b.test.yaml": {Data: []byte("cases: []\n")},
		"c.yaml":      {Data: []byte("not a test")},
	})
	want := []string{
		"a.test.yaml:3:26 E006 expect is one of match, no_match, undetermined, not \"matched\" (did you mean match?)",
		"a.test.yaml:4:40 E004 score: YAML reads 0.8 as float; put it in quotes",
		"a.test.yaml:5:5 E005 a case needs capture",
		"a.test.yaml:5:21 E002 unknown key \"scores\" in a case (did you mean score?)",
		"a.test.yaml:6:40 E006 score is a bound such as \">=0.8\", not \"0.8\"",
		"b.test.yaml:1:1 E005 a test needs rule",
	}
	runnable := slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return c.Broken })
	if len(ps) != len(want) || len(runnable) != 0 || len(cases) != 5 {
		t.Fatalf("%d cases, %v", len(cases), ps)
	}
	for i := range want {
		if ps[i].String() != want[i] {
			t.Errorf("got  %s\nwant %s", ps[i], want[i])
		}
	}
}

func TestABadCaseOfATestHidesNoGoodOne(t *testing.T) {
	set := mustLoad(t, rule("a.b", "{stack: leaf read}", ""))
	for _, c := range []struct{ name, file, text, problem, want string }{
		{"one bad case", "a.b.test.yaml", "rule: a.b\ncases:\n  - {capture: x, expect: match}\n  - {capture: x, expect: matched}\n", "E006", "ok"},
		{"no good case", "a.b.test.yaml", "rule: a.b\ncases:\n  - {capture: x, expect: matched}\n", "E006", ""},
		{"no list of cases", "other.test.yaml", "rule: a.b\ncases: none\n", "E004", ""},
		{"no YAML", "a.b.test.yaml", "rule: a.b\ncases: [\n", "E001", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cases, ps := LoadTests(fstest.MapFS{c.file: {Data: []byte(c.text)}})
			if len(ps) != 1 || ps[0].Code != c.problem {
				t.Fatal(ps)
			}
			got := ""
			for _, o := range set.Test(cases, TestOptions{Open: func(string) (*Observation, error) { return observe(seen{"read", 0, 1}), nil }}) {
				if got += "ok"; o.Err != nil {
					t.Error(o.Err)
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if w := set.Lint(LintOptions{Tests: cases}); len(w) > 0 && (c.want == "" || w[0].Code != codeNoNearMiss) {
				t.Error(w)
			}
		})
	}
}
