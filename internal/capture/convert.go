package capture

import (
	"slices"
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/rules"
)

// Observe is the capture as rules see it. It shares c's facts and arguments,
// which rules only read.
func Observe(c *Capture) *rules.Observation {
	o := &rules.Observation{
		Target:   rules.Target{PHPVersion: c.Target.PHPVersion, SAPI: c.Target.SAPI, Libc: c.Target.Libc},
		Stacks:   make([]rules.Stack, len(c.Stacks)),
		Events:   make([]rules.Event, len(c.Events)),
		Duration: time.Duration(c.Observation.DurationMS) * time.Millisecond,
		Facts:    c.Facts,
	}
	for i := range c.Stacks {
		fs := make([]rules.Frame, len(c.Stacks[i].Frames))
		for j := range fs {
			fs[j] = ruleFrame(&c.Stacks[i].Frames[j])
		}
		o.Stacks[i].Frames = fs
		o.Stacks[i].Truncated = c.Stacks[i].End == stack.Truncated
	}
	for _, b := range c.Observation.Breakpoints {
		o.Watched = watch(o.Watched, b.Symbol)
	}
	for i, e := range c.Events {
		kind := rules.Sample
		if e.Kind == Stop {
			kind = rules.Stop
			// A capture that was cut off has lost its list of breakpoints,
			// but a stop proves that there was one.
			o.Watched = watch(o.Watched, e.Symbol)
		}
		o.Events[i] = rules.Event{Kind: kind, At: e.At, TID: e.TID, Symbol: e.Symbol, Args: e.Args, Stack: e.Stack}
	}
	return o
}

func watch(symbols []string, s string) []string {
	if s == "" || slices.Contains(symbols, s) {
		return symbols
	}
	return append(symbols, s)
}

func ruleFrame(f *stack.Frame) rules.Frame {
	kind := rules.Native
	if f.Kind == stack.PHP {
		kind = rules.PHP
	}
	return rules.Frame{Kind: kind, Name: f.Function, Raw: f.Raw, Class: f.Class, Module: f.Module,
		File: f.File, Line: f.Line, Inlined: f.Inlined, Internal: f.Internal}
}
