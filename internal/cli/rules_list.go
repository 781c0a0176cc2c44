package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/rules"
)

// listed is a rule in the JSON of "rules list" and "rules show".
type listed struct {
	ID           string            `json:"id"`
	Revision     int               `json:"revision"`
	Title        string            `json:"title"`
	Severity     string            `json:"severity"`
	Maturity     string            `json:"maturity"`
	Kind         string            `json:"kind"`
	Source       string            `json:"source"` // the folder, or (built-in)
	File         string            `json:"file"`
	AppliesTo    string            `json:"applies_to"`
	Supersedes   []string          `json:"supersedes"`
	Overrides    string            `json:"overrides"` // the file of the rule that it replaces
	Labels       map[string]string `json:"labels"`
	Alternatives []string          `json:"alternatives"`
	Explain      string            `json:"explain"`
	Fix          string            `json:"fix"`
	Refs         []string          `json:"refs"`
	Text         string            `json:"text,omitempty"` // of show
}

func listedOf(r *rules.Rule) listed {
	l := listed{ID: r.ID, Revision: r.Revision, Title: r.Title, Severity: string(r.Severity), Maturity: r.Maturity, Kind: string(r.Kind),
		Source: r.Source, File: r.File, AppliesTo: r.AppliesTo(), Supersedes: list(r.Supersedes), Labels: map[string]string{},
		Alternatives: []string{}, Explain: r.Explain, Fix: r.Fix, Refs: list(r.Refs)}
	maps.Copy(l.Labels, r.Labels)
	for _, a := range r.Alternatives() {
		l.Alternatives = append(l.Alternatives, a.Alternative)
	}
	if o := r.Replaces(); o != nil {
		l.Overrides = o.File
	}
	return l
}

// catalogue is the JSON of "rules list" (phpwhy/rules-list/v1).
type catalogue struct {
	Schema  string        `json:"schema"`
	Rules   []listed      `json:"rules"`
	Skipped []lintProblem `json:"skipped"` // why rules are left out
	Path    []string      `json:"search_path"`
}

func newRulesList(s streams) *cobra.Command {
	var f rulesFlags
	var labels []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the rules in force, and what was left out",
		Long: `list shows the rules that attach, dump and match go by: the built-in ones, those
in /etc/phpwhy/rules, in phpwhy/rules of the user's configuration folder, and in
--rules DIR, with the files that were left out and why.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := f.check(); err != nil {
				return err
			}
			for _, l := range labels {
				if name, _, ok := strings.Cut(l, "="); !ok || name == "" {
					return usageErrorf("--label is NAME=VALUE, not %q", l)
				}
			}
			return listRules(s, &f, labels)
		},
	}
	f.flags(cmd, "text", "json")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "only rules with this label, as NAME=VALUE")
	return cmd
}

func listRules(s streams, f *rulesFlags, labels []string) error {
	sources := ruleSources(f.noBuiltin, f.dirs)
	set, problems := rules.LoadSources(sources...)
	out := catalogue{Schema: "phpwhy/rules-list/v1", Rules: []listed{}, Skipped: []lintProblem{}, Path: searchPath()}
	for _, r := range set.Rules() {
		if hasLabels(r, labels) {
			out.Rules = append(out.Rules, listedOf(r))
		}
	}
	for _, p := range problems {
		out.Skipped = append(out.Skipped, lintProblem{p.File, p.Line, p.Col, p.Code, level(p), p.Msg})
	}
	if f.format == "json" {
		return writeJSON(s.out, out)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	for i := range out.Rules {
		r := &out.Rules[i]
		what := r.Title
		if r.Kind == string(rules.Benign) {
			what += " (healthy)"
		}
		if r.Maturity != "stable" {
			what += " (" + r.Maturity + ")"
		}
		if r.Overrides != "" {
			what += " (overrides " + r.Overrides + ")"
		}
		printf(w, "%s@%d\t%s\t%s\t%s", r.ID, r.Revision, r.Severity, r.Source, what)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range problems {
		printf(s.out, "skipped: %s", p)
	}
	fmt.Fprintf(s.out, "%s in force\n", plural(len(out.Rules), "rule"))
	return nil
}

func hasLabels(r *rules.Rule, labels []string) bool {
	for _, l := range labels {
		name, value, _ := strings.Cut(l, "=")
		if have, ok := r.Labels[name]; !ok || have != value {
			return false
		}
	}
	return true
}

func newRulesShow(s streams) *cobra.Command {
	var f rulesFlags
	cmd := &cobra.Command{
		Use:   "show RULE...",
		Short: "Print rules as they are in force, and where they are from",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return showRules(s, &f, args)
		},
	}
	f.flags(cmd, "text", "json")
	return cmd
}

func showRules(s streams, f *rulesFlags, args []string) error {
	if len(args) == 0 {
		return usageErrorf("show takes ids of rules; phpwhy rules list names them")
	}
	set, _ := rules.LoadSources(ruleSources(f.noBuiltin, f.dirs)...)
	out := []listed{}
	for _, id := range args {
		r, err := set.Find(id)
		if err != nil {
			return &usageError{err}
		}
		l := listedOf(r)
		l.Text = r.Text()
		out = append(out, l)
	}
	if f.format == "json" {
		return writeJSON(s.out, catalogue{Schema: "phpwhy/rules-list/v1", Rules: out, Skipped: []lintProblem{}, Path: searchPath()})
	}
	for i := range out {
		r := &out[i]
		if i > 0 {
			fmt.Fprintln(s.out, "---")
		}
		printf(s.out, "# %s", r.File)
		if r.Overrides != "" {
			printf(s.out, "# overrides %s", r.Overrides)
		}
		printLines(s.out, r.Text)
	}
	return nil
}

// printLines writes a text of several lines that may come from anyone.
func printLines(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		printf(w, "%s", strings.TrimSuffix(line, "\n"))
	}
}

func newRulesSchema(s streams) *cobra.Command {
	format := "json"
	cmd := &cobra.Command{
		Use:       "schema [rule|test]",
		Short:     "Print the JSON Schema of rule files or of their tests, for editors",
		ValidArgs: []string{"rule", "test"},
		RunE: func(_ *cobra.Command, args []string) error {
			text := rules.RuleSchema()
			switch {
			case format != "json":
				return usageErrorf("--format is json, not %q", format)
			case len(args) > 1, len(args) == 1 && !slices.Contains([]string{"rule", "test"}, args[0]):
				return usageErrorf("schema takes one word: rule or test")
			case len(args) == 1 && args[0] == "test":
				text = rules.TestSchema()
			}
			_, err := s.out.Write(text)
			return err
		},
	}
	cmd.Flags().StringVar(&format, "format", format, "json")
	return cmd
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
