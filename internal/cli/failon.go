package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/triage"
	"github.com/phpwhy/phpwhy/rules"
)

// gate is --fail-on: it makes exit code 1 of a cause that is bad enough, for
// scripts that don't want to read a report. The report is the same with it.
type gate struct {
	least rules.Severity // "" when every finding passes
	hit   []string       // the rules of findings that don't
}

func (g *gate) flags(cmd *cobra.Command) {
	cmd.Flags().Var(g, "fail-on", "end with exit code 1 when a cause of this severity or a worse one is reported: "+severityNames())
	choices := make([]cobra.Completion, 0, len(rules.Severities()))
	for _, s := range rules.Severities() {
		choices = append(choices, string(s))
	}
	// It fails for a flag that does not exist or has one already.
	if err := cmd.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveKeepOrder)); err != nil {
		panic(err)
	}
}

// severityNames are the choices, the mildest first.
func severityNames() string {
	var b strings.Builder
	all := rules.Severities()
	for i, s := range all {
		switch i {
		case 0:
		case len(all) - 1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(s))
	}
	return b.String()
}

// String, Set and Type make it a flag's value. An empty one is refused, too: it is
// a script's variable that was not set, and no wish to pass everything.
func (g *gate) String() string { return string(g.least) }

func (g *gate) Set(s string) error {
	if !slices.Contains(rules.Severities(), rules.Severity(s)) {
		return fmt.Errorf("it is %s", severityNames())
	}
	g.least = rules.Severity(s)
	return nil
}

func (g *gate) Type() string { return "SEVERITY" }

func (g *gate) finding(rule, kind, severity string) {
	all := rules.Severities()
	if g.least == "" || kind != string(rules.Cause) || slices.Contains(g.hit, rule) ||
		slices.Index(all, rules.Severity(severity)) < slices.Index(all, g.least) {
		return
	}
	g.hit = append(g.hit, rule)
}

// one looks at the report on one process.
func (g *gate) one(r *report.Report) {
	for i := range r.Findings {
		f := &r.Findings[i]
		g.finding(f.Rule, f.Kind, f.Severity)
	}
}

// many looks at the report on many workers.
func (g *gate) many(m *triage.Model) {
	for i := range m.Findings {
		f := &m.Findings[i]
		g.finding(f.Rule, f.Kind, f.Severity)
	}
}

// verdict is how a command ends that would end with err. What went wrong goes
// before what was found: it may have been found in a part of the workers only.
func (g *gate) verdict(err error) error {
	if err != nil || len(g.hit) == 0 {
		return err
	}
	return &checkError{exitCheck, fmt.Sprintf("--fail-on %s: %s of that severity or worse: %s", g.least, plural(len(g.hit), "cause"), strings.Join(g.hit, ", "))}
}
