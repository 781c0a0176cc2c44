package capture

import (
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/rules"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Pasted is a capture of stacks that were pasted (rules.ParseBacktrace): without
// a target, addresses, times and facts.
func Pasted(o *rules.Observation) *Capture {
	c := &Capture{Stacks: make([]stack.Stack, len(o.Stacks)), Events: make([]Event, len(o.Events))}
	for i := range o.Stacks {
		fs := make([]stack.Frame, len(o.Stacks[i].Frames))
		for j := range fs {
			f := &o.Stacks[i].Frames[j]
			fs[j] = stack.Frame{Kind: stack.Native, Function: f.Name, Raw: f.Raw, Module: f.Module, File: f.File, Line: f.Line, Inlined: f.Inlined}
		}
		c.Stacks[i] = stack.Stack{Frames: fs, End: stack.Root}
		if o.Stacks[i].Truncated {
			c.Stacks[i].End = stack.Truncated
		}
	}
	for i := range o.Events {
		ev := &o.Events[i]
		kind := Sample
		c.Observation.Samples++
		if ev.Kind == rules.Stop {
			kind = Stop
			c.Observation.Stops++
			c.Observation.Samples--
		}
		c.Events[i] = Event{Kind: kind, Symbol: ev.Symbol, Args: ev.Args, Stack: ev.Stack}
	}
	if o.Nearby {
		c.Observation.Notes = append(c.Observation.Notes, "strace names a frame by the nearest symbol below it: in a stripped program that is often another function")
	}
	for _, w := range o.Watched {
		b := Breakpoint{Symbol: w, Addr: remote.Addr(0).String()} // the text does not say where
		for i := range c.Events {
			if c.Events[i].Kind == Stop && c.Events[i].Symbol == w {
				b.Hits++
			}
		}
		c.Observation.Breakpoints = append(c.Observation.Breakpoints, b)
	}
	return c
}
