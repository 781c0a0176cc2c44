package cli

import (
	"fmt"
	"maps"
	"path"
	"slices"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/rules"
)

type testFlags struct {
	rulesFlags
	only  []string
	watch bool
}

func newRulesTest(s streams) *cobra.Command {
	var f testFlags
	cmd := &cobra.Command{
		Use:   "test [DIR|FILE]...",
		Short: "Run rules over the captures of their tests",
		Long: `test runs the cases of *.test.yaml files. Each rule under test also runs over all
captures of these cases: a match that no case expects fails, and so does a rule
without a case. Rules that are not under test, such as the built-in ones, may
match; that is noted. Without arguments it runs the tests of all rules in force,
but for the built-in ones, whose captures are in the source tree only.
Exit code: 0 all as expected, 1 a failure, 2 unreadable, 3 no test selected.`,
		Example: "  phpwhy rules test /etc/phpwhy/rules\n  phpwhy rules test . --rule my.report-loop --watch",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.watching(cmd.Context(), s, f.watch, args, func() error { return testRules(s, &f, args) })
		},
	}
	f.flags(cmd, "text", "json", "junit", "sarif")
	cmd.Flags().StringSliceVar(&f.only, "rule", nil, "test only these rules; a name may have a *")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "test again whenever a file changes, until Ctrl-C")
	return cmd
}

// tested is what a run of tests came to.
type tested struct {
	outcomes []rules.Outcome
	problems []rules.Problem // of rules and tests that don't load
	noted    []string        // matches of rules that are not under test
}

func (t *tested) failures() int {
	n := len(t.problems)
	for i := range t.outcomes {
		if t.outcomes[i].Err != nil {
			n++
		}
	}
	return n
}

func testRules(s streams, f *testFlags, args []string) error {
	sel, err := f.choose(args)
	if err != nil {
		return err
	}
	if sel.implied {
		// The built-in rules' captures are not part of the program.
		sel.base = slices.DeleteFunc(slices.Clone(sel.chosen), func(s rules.Source) bool { return s.Name != builtinSource })
		sel.chosen = slices.DeleteFunc(sel.chosen, func(s rules.Source) bool { return s.Name == builtinSource })
	}
	t, selected := sel.test(f)
	if selected == 0 && len(t.problems) == 0 {
		return &checkError{exitNothing, "no test was selected: name a folder with *.test.yaml files (and --rule with ids that they test)"}
	}
	switch f.format {
	case "json":
		err = t.json(s.out)
	case "junit":
		err = t.junit(s.out)
	case "sarif":
		err = writeSARIF(s.out, t.sarif())
	default:
		t.text(s)
	}
	if n := t.failures(); err == nil && n > 0 {
		err = &checkError{exitCheck, fmt.Sprintf("%s of %d", plural(n, "failure"), len(t.outcomes)+len(t.problems))}
	}
	return err
}

// test runs the tests that were chosen; selected counts the cases, and rules
// that have none.
func (sel *selection) test(f *testFlags) (t tested, selected int) {
	set, problems := sel.load()
	cases, more := rules.LoadTestSources(sel.chosen...)
	t.problems = append(problems, more...)
	wanted := func(id string) bool {
		return len(f.only) == 0 || slices.ContainsFunc(f.only, func(o string) bool { ok, err := path.Match(o, id); return ok && err == nil })
	}
	under := func(r *rules.Rule) bool { return sel.chose(r) && wanted(r.ID) }
	chosen := slices.DeleteFunc(slices.Clone(cases), func(c rules.Case) bool { return !wanted(c.Rule) })
	also := make(map[string]bool)
	t.outcomes = set.Test(chosen, rules.TestOptions{Open: openCapture, Only: under, Also: func(capture string, f rules.Finding) {
		also[fmt.Sprintf("%s on %s, score %.2f", f.Rule, capture, f.Confidence)] = true
	}})
	t.noted = slices.Sorted(maps.Keys(also))
	return t, len(t.outcomes)
}

// name is how a line of the result calls a case.
func caseName(o *rules.Outcome) string {
	if o.Capture == "" {
		return o.Rule
	}
	return o.Rule + " " + path.Base(o.Capture)
}

// said is the verdict in a few words.
func said(o *rules.Outcome) string {
	text := o.Verdict.String()
	if o.Verdict == rules.Match {
		if o.Via != "" {
			text += " via " + o.Via
		}
		text += fmt.Sprintf(", score %.2f", o.Reached)
	}
	return text
}

func (t *tested) text(s streams) {
	for _, p := range t.problems {
		printf(s.out, "FAIL %s", p)
	}
	for i := range t.outcomes {
		o := &t.outcomes[i]
		switch {
		case o.Err != nil:
			printf(s.out, "FAIL %s: %s (%s:%d)", caseName(o), o.Err, o.File, o.Line)
		default:
			printf(s.out, "ok   %s: %s", caseName(o), said(o))
		}
	}
	for _, n := range t.noted {
		printf(s.out, "note: not under test and matches: %s", n)
	}
	n := t.failures()
	fmt.Fprintf(s.out, "%d ok, %s\n", len(t.outcomes)+len(t.problems)-n, plural(n, "failure"))
}
