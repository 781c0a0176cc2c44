package builtin_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/rules"
	"github.com/phpwhy/phpwhy/rules/builtin"
)

func load(t *testing.T) (*rules.Set, []rules.Case) {
	t.Helper()
	set, problems := rules.Load(builtin.FS)
	cases, more := rules.LoadTests(builtin.FS)
	for _, p := range append(problems, more...) {
		t.Error(p)
	}
	return set, cases
}

func open(name string) (*rules.Observation, error) {
	f, err := capture.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := capture.Read(f)
	if err != nil {
		return nil, err
	}
	return capture.Observe(c), nil
}

func TestTheRulesPassTheirTests(t *testing.T) {
	set, cases := load(t)
	for _, o := range set.RunTests(cases, open) {
		t.Run(o.Rule+"/"+path.Base(o.Capture), func(t *testing.T) {
			if o.Err != nil {
				t.Errorf("%s:%d: %v", o.File, o.Line, o.Err)
			}
		})
	}
}

func TestEveryRuleHasAMatchAndANearMiss(t *testing.T) {
	set, cases := load(t)
	has := make(map[string]map[rules.Verdict]bool)
	for _, c := range cases {
		if has[c.Rule] == nil {
			has[c.Rule] = make(map[rules.Verdict]bool)
		}
		has[c.Rule][c.Expect] = true
	}
	for _, r := range set.Rules() {
		if h := has[r.ID]; !h[rules.Match] || !h[rules.NoMatch] {
			t.Errorf("%s lacks a case that matches or one that does not", r.ID)
		}
	}
}

func TestNoCaptureLiesUnused(t *testing.T) {
	_, cases := load(t)
	used := make(map[string]bool)
	for _, c := range cases {
		used[path.Base(c.Capture)] = true
	}
	dir, err := os.ReadDir("captures")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range dir {
		if path.Ext(e.Name()) == ".zst" && !used[e.Name()] {
			t.Errorf("captures/%s is in no test", e.Name())
		}
	}
}

func TestHealthyWorkIsNoHang(t *testing.T) {
	set, _ := load(t)
	names, err := filepath.Glob("captures/healthy-*.zst")
	if err != nil || len(names) < 20 {
		t.Fatalf("%d captures of healthy work, %v", len(names), err)
	}
	for _, name := range names {
		o, err := open(name)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := set.Evaluate(o, rules.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range rep.Findings {
			if f.Kind == rules.Cause && f.Severity != rules.Low && f.Severity != rules.Info {
				t.Errorf("%s: %s of severity %s: %s", name, f.Rule, f.Severity, f.Message)
			}
		}
	}
}

// The rules that a program carries are loaded without compiling their expressions.
func TestTrustedRulesSayWhatCompiledOnesSay(t *testing.T) {
	strict, _ := load(t)
	trusted, problems := rules.LoadSources(rules.Source{FS: builtin.FS, Trusted: true})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	names, err := filepath.Glob("captures/*.jsonl.zst")
	if err != nil || len(names) < 40 {
		t.Fatal(err, names)
	}
	say := func(s *rules.Set, o *rules.Observation) []string {
		rep, err := s.Evaluate(o, rules.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for i := range rep.Results {
			r := &rep.Results[i]
			f, err := json.Marshal(r.Finding)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%s: %v, skipped %q, missing %v, near %v, via %s, hidden %q, errors %v, %s",
				r.Rule.ID, r.Verdict, r.Skipped, r.Missing, r.Near, r.Via, r.Hidden, r.Errors, f))
		}
		return out
	}
	for _, name := range names {
		o, err := open(name)
		if err != nil {
			t.Fatal(err)
		}
		a, b := say(strict, o), say(trusted, o)
		if !slices.Equal(a, b) {
			t.Errorf("%s:\n%q\n%q", name, a, b)
		}
	}
}
