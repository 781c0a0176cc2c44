package rules

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// rule writes a rule file: head is added to the required keys, match is the
// value of match, on one line.
func rule(id, match, head string) string {
	return fmt.Sprintf("schema: phpwhy/rule/v1\nid: %s\ntitle: t\nseverity: low\nmessage: m\nmatch: %s\n%s\n", id, match, head)
}

func mustLoad(t testing.TB, rules ...string) *Set {
	t.Helper()
	dir := fstest.MapFS{}
	for i, r := range rules {
		dir[fmt.Sprintf("%d.yaml", i)] = &fstest.MapFile{Data: []byte(r)}
	}
	s, ps := Load(dir)
	for _, p := range ps {
		t.Fatal(p)
	}
	return s
}

func evaluate(t testing.TB, s *Set, o *Observation) Report {
	t.Helper()
	rep, err := s.Evaluate(o, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// observe makes an observation: each stack with how many stops and samples it had.
type seen struct {
	stack          string
	stops, samples int
}

func observe(ss ...seen) *Observation {
	o := &Observation{Watched: []string{"mmap", "mremap"}, Duration: time.Second, Facts: map[string]any{}}
	for i, s := range ss {
		o.Stacks = append(o.Stacks, Stack{Frames: frames(s.stack)})
		for range s.stops {
			o.Events = append(o.Events, Event{Kind: Stop, Symbol: "mremap", Stack: i})
		}
		for range s.samples {
			o.Events = append(o.Events, Event{Kind: Sample, Stack: i})
		}
	}
	return o
}

func TestAConditionHasAVerdict(t *testing.T) {
	mixed := observe(seen{"mremap concat_function php:a", 8, 1}, seen{"mmap zend_mm_alloc php:b", 2, 9})
	truncated := observe(seen{"mremap concat_function", 5, 0})
	truncated.Stacks[0].Truncated = true
	unwatched := observe(seen{"execute_ex php:a", 0, 3})
	unwatched.Watched = nil
	// --break mmap: with stops, and without.
	mapped, idle := observe(seen{"mmap zend_mm_alloc", 3, 0}), observe(seen{"execute_ex", 0, 3})
	mapped.Watched, idle.Watched = []string{"mmap"}, []string{"mmap"}
	grown := &Observation{Watched: []string{"mmap"}, Stacks: idle.Stacks, Events: series(9, func(i uint64) Event { return mmap(0x7f0000000000+i*page, page) })}
	for _, c := range []struct {
		name, match string
		o           *Observation
		want        Verdict
		missing     string // a part of what is reported, of one entry
	}{
		{"the share is met", "{in: stops, share: 0.8, stack: leaf mremap}", mixed, Match, ""},
		{"the share is missed", "{in: stops, share: 0.81, stack: leaf mremap}", mixed, NoMatch, ""},
		{"samples have shares of their own", "{in: samples, share: 0.8, stack: leaf mremap}", mixed, NoMatch, ""},
		{"without a share one is enough", "{in: samples, stack: leaf mremap}", mixed, Match, ""},
		{"any counts both", "{in: any, share: 0.5, stack: leaf mmap}", mixed, Match, ""},
		{"stack and php must match the same event", "{in: stops, stack: leaf mremap, php: b}", mixed, NoMatch, ""},
		{"stops that were watched for and did not come", "{in: stops, stack: leaf mremap}", observe(seen{"execute_ex", 0, 3}), NoMatch, ""},
		{"stops that were not watched for", "{in: stops, stack: leaf mremap}", unwatched, Undetermined, "stops (needs: attach"},
		{"stops on another function", "{in: stops, stack: leaf mremap}", mapped, Undetermined, "stops on mremap (needs: --break mremap)"},
		{"no stops, and another function was watched", "{in: stops, stack: leaf mremap}", idle, Undetermined, "stops on mremap (needs: --break mremap)"},
		{"one of two functions was watched", "{in: stops, stack: \"leaf opt mremap\\nmmap\"}", idle, Undetermined, "stops on mremap"},
		{"an alternative that was not watched for", "{in: stops, stack: {a: leaf mmap, b: leaf mremap}}", idle, Undetermined, "stops on mremap"},
		{"an alternative that was, and came", "{in: stops, stack: {a: leaf mmap, b: leaf mremap}}", mapped, Match, ""},
		{"the function that was watched did not come", "{in: stops, stack: leaf mmap}", idle, NoMatch, ""},
		{"whatever was watched did not come", "{in: stops, stack: concat_function}", idle, NoMatch, ""},
		{"a glob is no function", "{in: stops, stack: leaf m*}", idle, NoMatch, ""},
		{"growth needs both functions", "{expr: chain.steps >= 1}", idle, Undetermined, "chain.steps (needs: attach with breakpoints on mmap and mremap"},
		{"growth by the one function that was watched", "{expr: chain.steps >= 8}", grown, Match, ""},
		{"samples that were not taken", "{in: samples, stack: leaf mremap}", observe(seen{"mremap", 3, 0}), Undetermined, "samples (needs:"},
		{"nothing at all", "{in: any, stack: leaf mremap}", observe(), Undetermined, "stacks (needs:"},
		{"a root that was not read", "{in: stops, stack: root concat_function}", truncated, Undetermined, "whole stacks"},
		{"a root that no rest can help", "{in: stops, stack: root execute_ex}", observe(seen{"mremap", 1, 0}), NoMatch, ""},
		{"what a truncated stack has", "{in: stops, stack: concat_function}", truncated, Match, ""},
		{"PHP frames that were not collected", "{in: stops, stack: leaf mremap, php: user}", observe(seen{"mremap concat_function execute_ex main", 1, 0}), Undetermined, "PHP frames"},
		{"no PHP code at work", "{in: stops, stack: leaf mremap, php: user}", observe(seen{"mremap malloc main", 1, 0}), NoMatch, ""},
		{"native frames that no PHP frame can save", "{in: stops, stack: leaf mmap, php: user}", observe(seen{"mremap concat_function execute_ex main", 1, 0}), NoMatch, ""},
		{"a true expression", "{expr: stack.depth == 3}", mixed, Match, ""},
		{"a false expression", "{expr: stack.depth > 3}", mixed, NoMatch, ""},
		{"missing evidence", "{expr: proc.cpu_pct > 90.0}", mixed, Undetermined, "proc.cpu_pct (needs: attach"},
		{"missing evidence that changes nothing", "{expr: stack.depth == 3 || proc.cpu_pct > 90.0}", mixed, Match, ""},
		{"missing evidence that can't save it", "{expr: stack.depth > 3 && proc.cpu_pct > 90.0}", mixed, NoMatch, ""},
		{"only the evidence that decides is named", "{expr: (stack.depth == 3 || pool.workers > 1) && proc.cpu_pct > 90.0}", mixed, Undetermined, "proc.cpu_pct"},
		{"an expression over its cost", `{expr: "event.args.all(a, event.args.all(b, event.args.all(c, a + b + c > 0u)))"}`, costly(), Undetermined, ""},
		{"no match outweighs what is missing", "{all: [{expr: stack.depth > 3}, {expr: proc.cpu_pct > 90.0}]}", mixed, NoMatch, ""},
		{"a match outweighs it in any", "{any: [{expr: stack.depth == 3}, {expr: proc.cpu_pct > 90.0}]}", mixed, Match, ""},
		{"any is undetermined before it is no match", "{any: [{expr: stack.depth > 3}, {expr: proc.cpu_pct > 90.0}]}", mixed, Undetermined, "proc.cpu_pct"},
		{"what a satisfied part lacks is not missing", "{all: [{any: [{expr: stack.depth == 3}, {expr: pool.workers > 1}]}, {expr: proc.cpu_pct > 90.0}]}", mixed, Undetermined, "proc.cpu_pct"},
		{"not", "{not: {expr: stack.depth > 3}}", mixed, Match, ""},
		{"not of what can't be known", "{not: {expr: proc.cpu_pct > 90.0}}", mixed, Undetermined, "proc.cpu_pct"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := evaluate(t, mustLoad(t, rule("a.b", c.match, "")), c.o).Results[0]
			if res.Verdict != c.want {
				t.Errorf("%v, want %v; missing %q, errors %q", res.Verdict, c.want, res.Missing, res.Errors)
			}
			switch {
			case c.missing == "" && len(res.Missing) > 0:
				t.Errorf("missing %q", res.Missing)
			case c.missing != "" && (len(res.Missing) != 1 || !strings.HasPrefix(res.Missing[0], c.missing)):
				t.Errorf("missing %q, want %q", res.Missing, c.missing)
			}
		})
	}
}

func costly() *Observation {
	o := observe(seen{"mremap", 1, 0})
	o.Events[0].Args = make([]uint64, 100)
	for i := range o.Events[0].Args {
		o.Events[0].Args[i] = uint64(i + 1)
	}
	return o
}

func TestARuleThatPanicsTakesNoOtherDown(t *testing.T) {
	s := mustLoad(t, rule("a.bad", "{expr: stack.depth > 0}", ""), rule("a.good", "{expr: stack.depth > 0}", ""))
	s.Rule("a.bad").match = &exprNode{} // no file can bring this about
	o := observe(seen{"mremap concat_function", 1, 0})
	rep := evaluate(t, s, o)
	if bad := rep.Results[0]; bad.Verdict != Undetermined || len(bad.Errors) != 1 || !strings.Contains(bad.Errors[0], "the rule was skipped: evaluating it failed") {
		t.Errorf("%+v", bad)
	}
	if len(rep.Findings) != 1 || rep.Findings[0].Rule != "a.good" {
		t.Errorf("%+v", rep.Findings)
	}
	if e, err := s.Explain("a.good", o, Options{}); err != nil || e.Verdict != Match {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := s.Explain("a.bad", o, Options{}); err == nil || !strings.Contains(err.Error(), "a.bad can't be explained") {
		t.Error(err)
	}
}

func TestAnExpressionThatFailsIsReportedOnce(t *testing.T) {
	const match = `{all: [{stack: leaf mremap}, {expr: "event.args.all(a, event.args.all(b, event.args.all(c, a + b + c > 0u)))"}]}`
	res := evaluate(t, mustLoad(t, rule("a.b", match, "")), costly()).Results[0]
	if len(res.Errors) != 1 || !strings.Contains(res.Errors[0], "cost") {
		t.Errorf("%q", res.Errors)
	}
}

func TestAnEventWithoutAStackIsRefused(t *testing.T) {
	for _, i := range []int{-1, 1} {
		o := observe(seen{"mremap", 1, 0})
		o.Events[0].Stack = i
		if _, err := mustLoad(t).Evaluate(o, Options{}); !errors.Is(err, ErrNoStack) {
			t.Errorf("stack %d: %v", i, err)
		}
	}
}

func TestAScoreAddsUp(t *testing.T) {
	two := observe(seen{"m ? ? concat_function", 1, 0}, seen{"m x ? concat_function", 1, 0})
	two.Facts["proc.cpu_pct"] = 60.0
	const match = "{stack: {long: \"leaf m\\n0-3 x unk\\nconcat_function\", short: leaf other}}"
	for _, c := range []struct {
		name, score string
		want        float64
		hidden      string
	}{
		{"the base alone", "{base: 0.7}", 0.7, ""},
		{"a bonus that holds", "{base: 0.7, plus: [{add: 0.2, if: proc.cpu_pct > 50.0}]}", 0.9, ""},
		{"one that does not", "{base: 0.7, plus: [{add: 0.2, if: proc.cpu_pct > 70.0}]}", 0.7, ""},
		{"one that can't be told", "{base: 0.7, plus: [{add: 0.2, if: pool.workers > 1}]}", 0.7, ""},
		{"a malus", "{base: 0.7, plus: [{add: -0.1, if: proc.cpu_pct > 50.0}]}", 0.6, ""},
		{"unknown frames cost their mean", "{base: 0.7, per_unknown: -0.1}", 0.55, ""},
		{"not above 1", "{base: 0.9, plus: [{add: 0.3, if: proc.cpu_pct > 50.0}]}", 1, ""},
		{"not below 0", "{base: 0.1, per_unknown: -1}", 0, "its score 0.00 is below 0.50"},
		{"too low to be reported", "{base: 0.6, per_unknown: -0.1, report_at: 0.5}", 0.45, "its score 0.45 is below 0.50"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rep := evaluate(t, mustLoad(t, rule("a.b", match, "score: "+c.score)), two)
			res := rep.Results[0]
			if res.Verdict != Match || res.Finding == nil {
				t.Fatalf("%+v", res)
			}
			if res.Finding.Confidence != c.want || res.Hidden != c.hidden || (len(rep.Findings) == 0) != (c.hidden != "") {
				t.Errorf("confidence %g, hidden %q, %d findings", res.Finding.Confidence, res.Hidden, len(rep.Findings))
			}
			if res.Via != "long" {
				t.Errorf("via %q", res.Via)
			}
		})
	}
}

func TestOnlyMatchingConditionsAreCountedAndCaptured(t *testing.T) {
	o := observe(seen{"mremap concat_function php!strlen php:wide php:main", 6, 0}, seen{"mremap concat_function php:narrow php:main", 3, 0}, seen{"mmap other php:other", 1, 0})
	s := mustLoad(t, strings.Replace(rule("a.b",
		"{any: [{in: stops, share: 1.0, stack: leaf mmap as=miss, php: user as=site}, {in: stops, share: 0.5, stack: \"leaf mremap\\nconcat_function as=c\", php: user as=site}]}",
		"bind: {d: stack.depth}"), "message: m", `message: "{{site}} {{c}} {{d}} {{miss}}"`, 1))
	f := evaluate(t, s, o).Findings[0]
	want := Site{Function: "wide", File: "/srv/wide.php", Line: 4}
	if f.Matched != 9 || f.Of != 10 || f.Site == nil || *f.Site != want {
		t.Errorf("%d of %d, site %+v", f.Matched, f.Of, f.Site)
	}
	if f.Message != "/srv/wide.php:4 concat_function 5 (unknown)" {
		t.Errorf("message %q", f.Message)
	}
}

func TestRulesHideEachOther(t *testing.T) {
	o := observe(seen{"accept fcgi_accept_request php:a", 1, 0})
	match := "{stack: leaf accept, php: user as=site}"
	late := `exceptions: [{site: "/srv/a.php:*", until: 2030-01-31, reason: known}]`
	for _, c := range []struct {
		name  string
		rules []string
		want  string // reported ids
		why   string // of rule a.one
	}{
		{"independent rules are all reported", []string{rule("a.one", match, ""), rule("a.two", match, "")}, "a.one a.two", ""},
		{"supersedes hides", []string{rule("a.one", match, ""), rule("a.two", match, "supersedes: [a.one]")}, "a.two", "superseded by a.two"},
		{"what is superseded itself still hides", []string{rule("a.one", match, ""), rule("b.two", match, "supersedes: [a.one]"), rule("a.three", match, "supersedes: [b.two]")},
			"a.three", "superseded by b.two"},
		{"the first of two that hide is named", []string{rule("a.one", match, ""), rule("b.two", match, "supersedes: [a.one]"), rule("c.three", match, "supersedes: [a.one]"), rule("idle.x", match, "kind: benign")},
			"idle.x", "superseded by b.two"},
		{"a rule that doesn't match hides nothing", []string{rule("a.one", match, ""), rule("a.two", "{stack: leaf other}", "supersedes: [a.one]")}, "a.one", ""},
		{"a match that is too unsure hides nothing", []string{rule("a.one", match, ""), rule("a.two", match, "supersedes: [a.one]\nscore: {base: 0.2}")}, "a.one", ""},
		{"a benign rule hides causes", []string{rule("a.one", match, ""), rule("idle.x", match, "kind: benign")}, "idle.x", "the process is healthy by idle.x"},
		{"an exception hides until its day", []string{rule("a.one", match, late)}, "", "excepted: known"},
		{"an exception for a file, on whatever line", []string{rule("a.one", match, strings.Replace(late, "/srv/a.php:*", "/srv/*.php", 1))}, "", "excepted: known"},
		{"an exception for one line", []string{rule("a.one", match, strings.Replace(late, "a.php:*", "a.php:1", 1))}, "a.one", ""},
		{"an exception for another place", []string{rule("a.one", match, strings.Replace(late, "/srv/a", "/srv/b", 1))}, "a.one", ""},
		{"a rule for another PHP", []string{rule("a.one", match, "applies_to: {php: \"<8\"}")}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o.Target.PHPVersion = "8.2.36"
			rep, err := mustLoad(t, c.rules...).Evaluate(o, Options{Now: time.Date(2030, 1, 31, 23, 0, 0, 0, time.UTC)})
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, f := range rep.Findings {
				ids = append(ids, f.Rule)
			}
			if got := strings.Join(ids, " "); got != c.want {
				t.Errorf("reported %q, want %q", got, c.want)
			}
			for _, r := range rep.Results {
				if r.Rule.ID == "a.one" && r.Hidden != c.why {
					t.Errorf("hidden %q, want %q", r.Hidden, c.why)
				}
			}
		})
	}
	rep, _ := mustLoad(t, rule("a.one", match, late)).Evaluate(o, Options{Now: time.Date(2030, 2, 1, 0, 0, 0, 0, time.UTC)})
	if len(rep.Findings) != 1 {
		t.Error("the exception outlives its day")
	}
}

func TestFindingsAreSortedBySeverityThenConfidence(t *testing.T) {
	o := observe(seen{"accept", 1, 0})
	r := func(id, severity, base string) string {
		return strings.Replace(rule(id, "{stack: leaf accept}", "score: {base: "+base+"}"), "severity: low", "severity: "+severity, 1)
	}
	var ids []string
	for _, f := range evaluate(t, mustLoad(t, r("a.low", "low", "0.99"), r("b.high", "high", "0.6"), r("c.high", "high", "0.8"), r("d.critical", "critical", "0.5")), o).Findings {
		ids = append(ids, f.Rule)
	}
	if got := strings.Join(ids, " "); got != "d.critical c.high b.high a.low" {
		t.Error(got)
	}
}

func TestAVersionRangeSelectsTargets(t *testing.T) {
	for _, c := range []struct {
		text, version string
		want          bool
	}{
		{">=5.6 <9", "8.2.36", true}, {">=5.6 <9", "9.0.0", false}, {">=5.6 <9", "5.5.38", false},
		{"<=8.2", "8.2.36", true}, {"<8.2", "8.2.0", false}, {">8.2", "8.2.36", false}, {">8.2", "8.3.0", true},
		{"=7.4", "7.4.33", true}, {"==7.4.32", "7.4.33", false}, {">=8.3", "8.4.11-dev", true}, {">=8.3", "8.2.36-1+deb12u1", false},
		{">=9", "", true},
	} {
		tests, err := parseVersions(c.text)
		if err != nil {
			t.Fatal(err)
		}
		a := applies{php: tests}
		if got, why := a.to(&Target{PHPVersion: c.version}); got != c.want {
			t.Errorf("%s for %s: %v (%s)", c.text, c.version, got, why)
		}
	}
}
