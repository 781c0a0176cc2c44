// Package export writes a report's stacks in the formats of other tools:
// folded lines for flamegraph.pl, pprof's profile.proto, and speedscope's JSON.
//
// Contract: nothing is left out but what a format has no place for. The counts
// of each file add up to the model's events, and a stack keeps its depth: an
// inlined call is a frame of its own where the format knows inlining or not.
//
// Hazard: names come from the observed programs. What a format gives a meaning
// to, such as ";" in folded stacks, is spelt out, and so is what a terminal
// would obey.
//
// Non-goal: it judges nothing and knows no files.
package export

import (
	"fmt"
	"strings"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// Name is what a frame is called in every export: a PHP function with its
// class, a native function, or the module and offset of one without a name.
func Name(f *stack.Frame) string {
	switch {
	case f.Kind == stack.PHP, f.Function != "":
		return report.Visible(f.QualifiedName())
	case f.Module == "":
		return "??"
	}
	return report.Visible(fmt.Sprintf("%s+0x%x", f.Module, f.Offset))
}

// place is " (file:line)" of a PHP frame, "" for one without a script.
func place(f *stack.Frame) string {
	switch {
	case f.File == "":
		return ""
	case f.Line <= 0:
		return " (" + report.Visible(f.File) + ")"
	}
	return fmt.Sprintf(" (%s:%d)", report.Visible(f.File), f.Line)
}

// path is a request's URI without its query, where secrets live.
func path(uri string) string {
	p, _, _ := strings.Cut(uri, "?")
	return p
}
