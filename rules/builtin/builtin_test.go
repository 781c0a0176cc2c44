package builtin_test

import (
	"os"
	"path"
	"path/filepath"
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
