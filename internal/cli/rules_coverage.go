package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/rules"
)

func newRulesCoverage(s streams) *cobra.Command {
	var f rulesFlags
	cmd := &cobra.Command{
		Use:   "coverage [DIR|FILE]...",
		Short: "Say what the tests of rules leave out",
		Long: `coverage runs the rules over the captures of their tests and names alternatives
that no capture exercises, the PHP versions, C libraries and kinds of symbols that
captures are from, and captures that no rule explains.`,
		Example: "  phpwhy rules coverage /etc/phpwhy/rules",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return coverage(s, &f, args)
		},
	}
	f.flags(cmd, "text", "json")
	return cmd
}

// covered is the JSON form (phpwhy/rules-coverage/v1).
type covered struct {
	Schema       string               `json:"schema"`
	Captures     int                  `json:"captures"`
	Alternatives []coveredAlternative `json:"alternatives"`
	Matrix       []coveredTarget      `json:"matrix"`
	Unexplained  []string             `json:"unexplained"` // captures that no rule reports anything on
	Unreadable   []string             `json:"unreadable"`
}

type coveredAlternative struct {
	Rule        string `json:"rule"`
	Alternative string `json:"alternative"`
	File        string `json:"file"`
	Line        int    `json:"line"`
	Captures    int    `json:"captures"` // with a stack that it matches
}

type coveredTarget struct {
	PHP      string   `json:"php"` // 8.2
	Libc     string   `json:"libc"`
	Symbols  string   `json:"symbols"`
	Captures int      `json:"captures"`
	Rules    []string `json:"rules"` // that match here
}

func coverage(s streams, f *rulesFlags, args []string) error {
	sel, err := f.choose(args)
	if err != nil {
		return err
	}
	set, problems := sel.load()
	cases, more := rules.LoadTestSources(sel.chosen...)
	for _, p := range append(problems, more...) {
		printf(s.err, "phpwhy: skipped: %s", p)
	}
	paths := make(map[string]bool)
	for _, c := range cases {
		if !c.Broken && !strings.HasPrefix(c.File, builtinSource) {
			paths[c.Capture] = true
		}
	}
	if len(paths) == 0 {
		return usageErrorf("no tests with captures here; name a folder with *.test.yaml files")
	}
	r := covered{Schema: "phpwhy/rules-coverage/v1", Alternatives: []coveredAlternative{}, Matrix: []coveredTarget{}, Unexplained: []string{}, Unreadable: []string{}}
	for _, rule := range set.Rules() {
		if sel.chose(rule) {
			for _, a := range rule.Alternatives() {
				r.Alternatives = append(r.Alternatives, coveredAlternative{rule.ID, a.Alternative, rule.File, a.Line, 0})
			}
		}
	}
	for _, p := range sorted(paths) {
		in, err := readInput(p, nil)
		if err == nil {
			for _, one := range in.workers() {
				err = errors.Join(err, r.add(set, one))
			}
		}
		if err != nil {
			r.Unreadable = append(r.Unreadable, oneLine(err))
		}
	}
	slices.SortFunc(r.Matrix, func(a, b coveredTarget) int {
		return cmp.Or(cmp.Compare(a.PHP, b.PHP), cmp.Compare(a.Libc, b.Libc), cmp.Compare(a.Symbols, b.Symbols))
	})
	if f.format == "json" {
		return writeJSON(s.out, r)
	}
	r.text(s.out)
	return nil
}

// add runs the rules over one capture.
func (r *covered) add(set *rules.Set, in *input) error {
	o := in.observe()
	hits, err := set.Coverage(o)
	if err != nil {
		return err
	}
	r.Captures++
	for _, h := range hits {
		for i := range r.Alternatives {
			a := &r.Alternatives[i]
			if h.Stacks > 0 && a.Rule == h.Rule.ID && a.File == h.Rule.File && a.Line == h.Line && a.Alternative == h.Alternative {
				a.Captures++
			}
		}
	}
	rep, err := set.Evaluate(o, rules.Options{})
	if err != nil {
		return err
	}
	t := r.target(&in.capture.Target)
	t.Captures++
	for _, f := range rep.Findings {
		if !slices.Contains(t.Rules, f.Rule) {
			t.Rules = append(t.Rules, f.Rule)
		}
	}
	slices.Sort(t.Rules)
	if len(rep.Findings) == 0 {
		r.Unexplained = append(r.Unexplained, in.name)
	}
	return nil
}

// target finds the row of the matrix that a capture belongs to.
func (r *covered) target(g *capture.Target) *coveredTarget {
	t := coveredTarget{PHP: minor(g.PHPVersion), Libc: unknownIfEmpty(g.Libc), Symbols: unknownIfEmpty(g.Symbols), Rules: []string{}}
	for i := range r.Matrix {
		if m := &r.Matrix[i]; m.PHP == t.PHP && m.Libc == t.Libc && m.Symbols == t.Symbols {
			return m
		}
	}
	r.Matrix = append(r.Matrix, t)
	return &r.Matrix[len(r.Matrix)-1]
}

// minor is 8.2 of 8.2.36.
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return "unknown"
	}
	return parts[0] + "." + parts[1]
}

func unknownIfEmpty(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func (r *covered) text(w io.Writer) {
	idle := 0
	for _, a := range r.Alternatives {
		if a.Captures == 0 {
			idle++
			printf(w, "never exercised: %s, %s (%s:%d)", a.Rule, a.Alternative, a.File, a.Line)
		}
	}
	for _, u := range r.Unexplained {
		printf(w, "no rule explains %s", u)
	}
	for _, u := range r.Unreadable {
		printf(w, "unreadable: %s", u)
	}
	fmt.Fprintf(w, "\n%-8s %-8s %-8s %8s  rules that match\n", "PHP", "libc", "symbols", "captures")
	for _, t := range r.Matrix {
		printf(w, "%-8s %-8s %-8s %8d  %s", t.PHP, t.Libc, t.Symbols, t.Captures, strings.Join(t.Rules, " "))
	}
	fmt.Fprintf(w, "\n%s; %d of %d alternatives exercised; %d captures without an explanation\n",
		plural(r.Captures, "capture"), len(r.Alternatives)-idle, len(r.Alternatives), len(r.Unexplained))
}
