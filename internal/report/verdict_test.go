package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/rules"
	"github.com/phpwhy/phpwhy/rules/builtin"
)

func TestAVerdictHoldsFindingsAndWhatCouldNotBeDecided(t *testing.T) {
	rule := func(id string) *rules.Rule { return &rules.Rule{ID: id} }
	finding := rules.Finding{Rule: "a", Severity: "high", Kind: rules.Cause, Confidence: 0.9, Title: "t", Message: "m", Fix: "f", Matched: 2, Of: 3,
		Site: &rules.Site{Function: "run", Class: "A", File: "/a.php", Line: 6}, Evidence: []rules.Evidence{{What: "w", N: 1, FromBytes: 2, ToBytes: 3}}}
	results := []rules.Result{
		{Rule: rule("a"), Verdict: rules.Match, Finding: &finding, Errors: []string{"no such key"}},
		{Rule: rule("b"), Verdict: rules.Undetermined, Missing: []string{"proc.cpu_pct"}},
		{Rule: rule("c"), Skipped: "it wants php <8"},
		{Rule: rule("d"), Verdict: rules.Match, Finding: &rules.Finding{Rule: "d"}, Hidden: "its score 0.40 is below 0.50"},
		{Rule: rule("e"), Verdict: rules.NoMatch},
	}
	want := Verdict{
		Findings: []Finding{{Rule: "a", Severity: "high", Confidence: 0.9, Kind: Cause, Title: "t", Message: "m", Fix: "f", Matched: 2, Of: 3,
			PHP: Site{"run", "A", "/a.php", 6}, Evidence: []Evidence{{"w", 1, 2, 3}}}},
		Undetermined: []Undetermined{{Rule: "b", Missing: []string{"proc.cpu_pct"}}},
		Notes:        []string{"a: no such key"},
	}
	if d := cmp.Diff(want, FromRules(rules.Report{Findings: []rules.Finding{finding}, Results: results})); d != "" {
		t.Error(d)
	}
	// With nothing to report, the match that was held back is worth a note.
	got := FromRules(rules.Report{Results: results[2:]})
	if d := cmp.Diff([]string{"d matches but is not reported: its score 0.40 is below 0.50", "1 rule for other targets not tried: c"}, got.Notes); d != "" {
		t.Error(d)
	}
}

// TestACaptureFileIsExplainedByTheBuiltinRules goes the whole way of a replay:
// file, observation, rules, report.
func TestACaptureFileIsExplainedByTheBuiltinRules(t *testing.T) {
	set, problems := rules.Load(builtin.FS)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	live := base(stripped(), 3000, 20)
	live.Facts = map[string]any{"proc.cpu_pct": 99.0}
	if err := live.Normalize(); err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := capture.Write(&file, live); err != nil {
		t.Fatal(err)
	}
	replayed, err := capture.Read(&file)
	if err != nil {
		t.Fatal(err)
	}
	var jsons [2]string
	for i, c := range []*capture.Capture{live, replayed} {
		rep, err := set.Evaluate(capture.Observe(c), rules.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r := Build(c, FromRules(rep))
		jsons[i] = string(jsonOf(t, r))
		if len(r.Findings) == 0 || r.Findings[0].Rule != "mem.string-concat" || r.Findings[0].PHP != (Site{"buildReport", "", report, 6}) {
			t.Fatalf("findings %+v, notes %q", r.Findings, r.Notes)
		}
		var text bytes.Buffer
		if err := Text(&text, r, TextOptions{}); err != nil {
			t.Fatal(err)
		}
		if want := "evidence: mremap grew one block ×3,000, 2.0 MiB → "; !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if d := cmp.Diff(jsons[0], jsons[1]); d != "" {
		t.Errorf("live and replay differ: %s", d)
	}
}
