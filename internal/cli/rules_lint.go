package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/rules"
)

type lintFlags struct {
	rulesFlags
	ignore []string
	watch  bool
}

func newRulesLint(s streams) *cobra.Command {
	var f lintFlags
	cmd := &cobra.Command{
		Use:   "lint [DIR|FILE]...",
		Short: "Check rules without running them",
		Long: `lint loads rules and their tests and prints every problem with its place and code.
A rule with an error (E) is not loaded; a warning (W) is about what loads and is
yet likely a mistake. Without arguments it checks all rules in force.
A file symbols.txt among the rules lists C functions that are known besides PHP's.
Exit code: 0 no problem, 1 a problem, 2 unreadable.`,
		Example: "  phpwhy rules lint /etc/phpwhy/rules\n  phpwhy rules lint my.yaml --watch",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return f.watching(cmd.Context(), s, f.watch, args, func() error { return lint(s, &f, args) })
		},
	}
	f.flags(cmd, "text", "json", "sarif")
	cmd.Flags().StringSliceVar(&f.ignore, "ignore", nil, "codes of warnings to leave out, such as W106")
	cmd.Flags().BoolVar(&f.watch, "watch", false, "check again whenever a file changes, until Ctrl-C")
	return cmd
}

func (f *lintFlags) check() error {
	for _, c := range f.ignore {
		if _, ok := rules.Codes()[c]; !ok || !strings.HasPrefix(c, "W") {
			return usageErrorf("--ignore: %q is no code of a warning", c)
		}
	}
	return f.rulesFlags.check()
}

// lintResult is the JSON form (phpwhy/lint/v1).
type lintResult struct {
	Schema   string        `json:"schema"`
	Rules    int           `json:"rules"` // that were checked and load
	Problems []lintProblem `json:"problems"`
}

type lintProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Code    string `json:"code"`
	Level   string `json:"level"` // error or warning
	Message string `json:"message"`
}

func level(p rules.Problem) string {
	if p.Warning() {
		return "warning"
	}
	return "error"
}

func lint(s streams, f *lintFlags, args []string) error {
	sel, err := f.choose(args)
	if err != nil {
		return err
	}
	problems, count, err := sel.lint()
	if err != nil {
		return err
	}
	problems = slices.DeleteFunc(problems, func(p rules.Problem) bool { return slices.Contains(f.ignore, p.Code) })
	if count == 0 && len(problems) == 0 {
		return usageErrorf("no rule files in %s", strings.Join(args, ", "))
	}
	switch f.format {
	case "json":
		r := lintResult{Schema: "phpwhy/lint/v1", Rules: count, Problems: []lintProblem{}}
		for _, p := range problems {
			r.Problems = append(r.Problems, lintProblem{p.File, p.Line, p.Col, p.Code, level(p), p.Msg})
		}
		err = writeJSON(s.out, r)
	case "sarif":
		err = writeSARIF(s.out, sarifOfProblems(problems))
	default:
		for _, p := range problems {
			printf(s.out, "%s", p)
		}
		if len(problems) == 0 {
			fmt.Fprintf(s.out, "%s, no problems\n", plural(count, "rule"))
		}
	}
	if err == nil && len(problems) > 0 {
		err = &checkError{exitCheck, fmt.Sprintf("%s found", plural(len(problems), "problem"))}
	}
	return err
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// lint checks what was chosen and counts the rules that load.
func (sel *selection) lint() (problems []rules.Problem, count int, err error) {
	set, problems := sel.load()
	cases, more := rules.LoadTestSources(sel.chosen...)
	problems = append(problems, more...)
	symbols, err := sel.symbols()
	if err != nil {
		return nil, 0, err
	}
	problems = append(problems, set.Lint(rules.LintOptions{Tests: cases, Symbols: symbols, Open: openCapture, Now: time.Now(), Only: sel.chose})...)
	for i := range cases {
		c := &cases[i]
		if c.Capture == "" || strings.HasPrefix(c.File, builtinSource) {
			continue // their captures are not part of the program
		}
		if _, err := os.Stat(c.Capture); err != nil {
			problems = append(problems, c.NoCapture(err))
		}
	}
	for _, r := range set.Rules() {
		if sel.chose(r) {
			count++
		}
	}
	slices.SortStableFunc(problems, func(a, b rules.Problem) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return 1000*(a.Line-b.Line) + a.Col - b.Col
	})
	return problems, count, nil
}

// load loads all rules, and returns the problems of those that were chosen.
func (sel *selection) load() (*rules.Set, []rules.Problem) {
	_, others := rules.LoadSources(sel.base...)
	set, problems := rules.LoadSources(sel.all()...)
	return set, slices.DeleteFunc(problems, func(p rules.Problem) bool { return slices.Contains(others, p) })
}

// symbols are the functions that the built-in rules, whether they are in force or
// not, and symbols.txt files know. A rule's own names prove nothing, but those of
// the built-in ones, which captures do.
func (sel *selection) symbols() (rules.Symbols, error) {
	var k rules.Symbols
	shipped := builtinRules()
	set, _ := rules.LoadSources(shipped)
	k.AddRules(set.Rules())
	for _, src := range append(sel.all(), shipped) {
		if err := k.AddFiles(src.FS); err != nil && !errors.Is(err, fs.ErrPermission) {
			return k, &usageError{err}
		}
	}
	return k, nil
}
