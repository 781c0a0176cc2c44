package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/rules"
)

func newRulesExplain(s streams) *cobra.Command {
	var f rulesFlags
	var pid int
	cmd := &cobra.Command{
		Use:   "explain RULE CAPTURE|-",
		Short: "Say how far a rule got on a capture",
		Long: `explain says of each condition of a rule whether it holds on a capture, of each
alternative which frame line stopped it at which frame, of each expression the
values of its names, and which other rules came nearest. Of a capture of many workers --pid chooses one.`,
		Example: "  phpwhy rules explain mem.string-concat hang.jsonl.zst",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return explain(s, &f, args, pid)
		},
	}
	f.flags(cmd, "text", "json")
	cmd.Flags().IntVar(&pid, "pid", 0, "the worker, where the capture has several")
	return cmd
}

func explain(s streams, f *rulesFlags, args []string, pid int) error {
	if len(args) != 2 {
		return usageErrorf("explain takes a rule's id and a capture")
	}
	set, problems := rules.LoadSources(ruleSources(f.noBuiltin, f.dirs)...)
	if set.Rule(args[0]) == nil {
		for _, p := range problems {
			printf(s.err, "phpwhy: rule skipped: %s", p)
		}
	}
	in, err := readOne(args[1], s.in, pid)
	if err != nil {
		return err
	}
	e, err := set.Explain(args[0], in.observe(), rules.Options{Now: time.Now()})
	if err != nil {
		return &usageError{err}
	}
	if f.format == "json" {
		return writeJSON(s.out, explanationJSON(e, in.name))
	}
	explainText(s.out, e, in.name)
	return nil
}

func explainText(w io.Writer, e *rules.Explanation, capture string) {
	printf(w, "%s (revision %d, %s) on %s: %s", e.Rule.ID, e.Rule.Revision, e.Rule.File, capture, headline(e))
	for _, m := range e.Missing {
		printf(w, "  it lacks %s", m)
	}
	for _, m := range e.Errors {
		if !says(&e.Match, m) { // the condition will
			printf(w, "  %s", m)
		}
	}
	if e.Skipped == "" {
		explainCondition(w, &e.Match, "  ")
	}
	if e.Finding != nil {
		var parts []string
		for _, v := range e.Score {
			switch {
			case v.Missing != "":
				parts = append(parts, fmt.Sprintf("+? (%s: it lacks %s)", v.Name, v.Missing))
			case v.Name == "base":
				parts = append(parts, "base "+v.Value)
			default:
				parts = append(parts, fmt.Sprintf("%s (%s)", v.Value, v.Name))
			}
		}
		printf(w, "  score %.2f: %s", e.Finding.Confidence, strings.Join(parts, " "))
		printf(w, "  message: %s", e.Finding.Message)
	}
	for _, v := range e.Bind {
		printf(w, "  bind %s", valueText(v))
	}
	for i := range e.Nearest {
		label := "nearest other rule: "
		if i > 0 {
			label = "then: "
		}
		printf(w, "%s%s", label, nearText(&e.Nearest[i]))
	}
}

// says reports whether an error is shown with a condition.
func says(e *rules.Explained, msg string) bool {
	return e.Err == msg || slices.ContainsFunc(e.Of, func(c rules.Explained) bool { return says(&c, msg) })
}

func headline(e *rules.Explanation) string {
	switch {
	case e.Skipped != "":
		return "not tried: " + e.Skipped
	case e.Hidden != "":
		return fmt.Sprintf("match via %s, not reported: %s", orStack(e.Via), e.Hidden)
	case e.Verdict == rules.Match && e.Via != "":
		return "match via " + e.Via
	}
	return e.Verdict.String()
}

func orStack(via string) string {
	if via == "" {
		return "its only pattern"
	}
	return via
}

func nearText(n *rules.Near) string {
	switch {
	case n.Verdict == rules.Match:
		return fmt.Sprintf("%s: match, score %.2f", n.Rule.ID, n.Score)
	case n.Verdict == rules.Undetermined:
		return fmt.Sprintf("%s: undetermined, %.0f %% of it holds", n.Rule.ID, 100*n.Fraction)
	}
	return fmt.Sprintf("%s: no match, %.0f %% of it holds", n.Rule.ID, 100*n.Fraction)
}

func valueText(v rules.Value) string {
	if v.Missing != "" {
		return v.Name + " is missing: " + v.Missing
	}
	return v.Name + " = " + v.Value
}

func explainCondition(w io.Writer, e *rules.Explained, indent string) {
	switch e.What {
	case "expr":
		printf(w, "%s%s: %s", indent, e.Expr, e.Verdict)
		for _, v := range e.Values {
			printf(w, "%s  %s", indent, valueText(v))
		}
		if e.Err != "" {
			printf(w, "%s  %s", indent, e.Err)
		}
	case "stack":
		want := "at least 1"
		if e.Share > 0 {
			want = fmt.Sprintf("%g %%", 100*e.Share)
		}
		printf(w, "%sin %s, %s wanted: %s, %d of %d", indent, e.In, want, e.Verdict, e.Matched, e.Events)
		for i := range e.Patterns {
			p := &e.Patterns[i]
			if p.Line > 0 {
				printf(w, "%s  %s (%s:%d)", indent, p, p.File, p.At)
			} else {
				printf(w, "%s  %s", indent, p)
			}
		}
		for _, m := range e.Missing {
			printf(w, "%s  it lacks %s", indent, m)
		}
	default:
		printf(w, "%s%s: %s", indent, e.What, e.Verdict)
	}
	for i := range e.Of {
		explainCondition(w, &e.Of[i], indent+"  ")
	}
}

// The JSON form of "rules explain" (phpwhy/rules-explain/v1).
type (
	explanationV1 struct {
		Schema  string      `json:"schema"`
		Rule    string      `json:"rule"`
		Capture string      `json:"capture"`
		Verdict string      `json:"verdict"`
		Via     string      `json:"via"`
		Score   float64     `json:"score"`
		Message string      `json:"message"`
		Skipped string      `json:"skipped"`
		Hidden  string      `json:"hidden"`
		Missing []string    `json:"missing"`
		Errors  []string    `json:"errors"`
		Match   conditionV1 `json:"match"`
		Parts   []valueV1   `json:"score_parts"`
		Bind    []valueV1   `json:"bind"`
		Nearest []nearV1    `json:"nearest"`
	}
	conditionV1 struct {
		What     string        `json:"what"`
		Verdict  string        `json:"verdict"`
		Missing  []string      `json:"missing"`
		Of       []conditionV1 `json:"of"`
		In       string        `json:"in,omitempty"`
		Share    float64       `json:"share,omitempty"`
		Matched  int           `json:"matched"`
		Events   int           `json:"events"`
		Patterns []reachedV1   `json:"patterns"`
		Expr     string        `json:"expr,omitempty"`
		Values   []valueV1     `json:"values"`
		Error    string        `json:"error,omitempty"`
	}
	reachedV1 struct {
		Name    string `json:"name"`
		PHP     bool   `json:"php"`
		Matched int    `json:"matched"`
		Of      int    `json:"of"`
		Line    int    `json:"line"`
		Wants   string `json:"wants"`
		Frame   int    `json:"frame"`
		FrameIs string `json:"frame_is"`
		File    string `json:"file"`
		At      int    `json:"file_line"`
	}
	valueV1 struct {
		Name    string `json:"name"`
		Value   string `json:"value"`
		Missing string `json:"missing"`
	}
	nearV1 struct {
		Rule     string  `json:"rule"`
		Verdict  string  `json:"verdict"`
		Score    float64 `json:"score"`
		Fraction float64 `json:"fraction"`
	}
)

func explanationJSON(e *rules.Explanation, capture string) explanationV1 {
	out := explanationV1{Schema: "phpwhy/rules-explain/v1", Rule: e.Rule.ID, Capture: capture, Verdict: e.Verdict.String(), Via: e.Via,
		Skipped: e.Skipped, Hidden: e.Hidden, Missing: list(e.Missing), Errors: list(e.Errors), Match: conditionJSON(&e.Match),
		Parts: valuesJSON(e.Score), Bind: valuesJSON(e.Bind), Nearest: []nearV1{}}
	if f := e.Finding; f != nil {
		out.Score, out.Message = f.Confidence, f.Message
	}
	for _, n := range e.Nearest {
		out.Nearest = append(out.Nearest, nearV1{n.Rule.ID, n.Verdict.String(), n.Score, n.Fraction})
	}
	return out
}

func conditionJSON(e *rules.Explained) conditionV1 {
	c := conditionV1{What: e.What, Verdict: e.Verdict.String(), Missing: list(e.Missing), Of: []conditionV1{}, In: e.In, Share: e.Share,
		Matched: e.Matched, Events: e.Events, Patterns: []reachedV1{}, Expr: e.Expr, Values: valuesJSON(e.Values), Error: e.Err}
	for i := range e.Of {
		c.Of = append(c.Of, conditionJSON(&e.Of[i]))
	}
	for _, p := range e.Patterns {
		c.Patterns = append(c.Patterns, reachedV1{p.Name, p.PHP, p.Matched, p.Of, p.Line, p.Wants, p.Frame, p.FrameIs, p.File, p.At})
	}
	return c
}

func valuesJSON(vs []rules.Value) []valueV1 {
	out := []valueV1{}
	for _, v := range vs {
		out = append(out, valueV1(v))
	}
	return out
}

// list is an array in JSON, even when it is empty.
func list(s []string) []string { return append([]string{}, s...) }
