// Package diagnose runs rules over a capture and says what they found in the
// report's terms.
//
// Non-goal: it neither observes nor prints.
package diagnose

import (
	"fmt"
	"io/fs"
	"sort"
	"strings"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/rules"
	"github.com/phpwhy/phpwhy/rules/builtin"
)

// Rules are the rules in force, and what was wrong with those left out.
type Rules struct {
	Set      *rules.Set
	Problems []rules.Problem
}

// Load loads the built-in rules, unless noBuiltin, and those in dirs.
func Load(noBuiltin bool, dirs ...fs.FS) Rules {
	if !noBuiltin {
		dirs = append([]fs.FS{builtin.FS}, dirs...)
	}
	set, problems := rules.Load(dirs...)
	return Rules{set, problems}
}

// Run evaluates the rules on a capture. now decides which exceptions have expired.
func Run(c *capture.Capture, r Rules, now time.Time) (report.Verdict, error) {
	rep, err := r.Set.Evaluate(Observation(c), rules.Options{Now: now})
	if err != nil {
		return report.Verdict{}, err
	}
	v := report.Verdict{}
	for i := range rep.Findings {
		v.Findings = append(v.Findings, finding(&rep.Findings[i]))
	}
	for i := range rep.Results {
		res := &rep.Results[i]
		if res.Verdict == rules.Undetermined {
			v.Undetermined = append(v.Undetermined, report.Undetermined{Rule: res.Rule.ID, Missing: res.Missing})
		}
		if len(res.Errors) > 0 {
			v.Notes = append(v.Notes, fmt.Sprintf("rule %s could not be evaluated: %s", res.Rule.ID, strings.Join(res.Errors, "; ")))
		}
		if res.Hidden != "" && !strings.HasPrefix(res.Hidden, "superseded") {
			v.Notes = append(v.Notes, fmt.Sprintf("rule %s matches but is not shown: %s", res.Rule.ID, res.Hidden))
		}
	}
	for _, p := range r.Problems {
		v.Notes = append(v.Notes, fmt.Sprintf("rule skipped: %s", p))
	}
	return v, nil
}

func finding(f *rules.Finding) report.Finding {
	out := report.Finding{
		Rule: f.Rule, Severity: string(f.Severity), Confidence: f.Confidence, Kind: string(f.Kind),
		Title: f.Title, Message: f.Message, Fix: f.Fix, Matched: f.Matched, Of: f.Of,
	}
	if f.Site != nil {
		out.PHP = report.Site{Function: f.Site.Function, Class: f.Site.Class, File: f.Site.File, Line: f.Site.Line}
	}
	for _, e := range f.Evidence {
		out.Evidence = append(out.Evidence, report.Evidence{What: e.What, N: e.N, FromBytes: e.FromBytes, ToBytes: e.ToBytes})
	}
	return out
}

// Observation is a capture in the terms of the rules.
func Observation(c *capture.Capture) *rules.Observation {
	o := &rules.Observation{
		Target:   rules.Target{PHPVersion: c.Target.PHPVersion, SAPI: c.Target.SAPI, Libc: c.Target.Libc},
		Duration: time.Duration(c.Observation.DurationMS) * time.Millisecond,
		Facts:    c.Facts,
	}
	for _, b := range c.Observation.Breakpoints {
		o.Watched = append(o.Watched, b.Symbol)
	}
	sort.Strings(o.Watched)
	for i := range c.Stacks {
		o.Stacks = append(o.Stacks, rules.Stack{Frames: frames(c.Stacks[i].Frames)})
	}
	for _, e := range c.Events {
		kind := rules.Sample
		if e.Kind == capture.Stop {
			kind = rules.Stop
		}
		o.Events = append(o.Events, rules.Event{Kind: kind, At: e.At, TID: e.TID, Symbol: e.Symbol, Args: e.Args, Stack: e.Stack})
	}
	return o
}

func frames(fs []stack.Frame) []rules.Frame {
	out := make([]rules.Frame, len(fs))
	for i := range fs {
		f := &fs[i]
		out[i] = rules.Frame{
			Kind: rules.Native, Name: f.Function, Raw: f.Raw, Class: f.Class, Module: f.Module,
			File: f.File, Line: f.Line, Inlined: f.Inlined, Internal: f.Internal,
		}
		if f.Kind == stack.PHP {
			out[i].Kind = rules.PHP
		}
	}
	return out
}
