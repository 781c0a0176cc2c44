package rules

import (
	"errors"
	"maps"
	"slices"
)

// Verdict is what a rule or a condition says of an observation.
type Verdict uint8

// The verdicts.
const (
	NoMatch Verdict = iota
	Undetermined
	Match
)

func (v Verdict) String() string { return [...]string{"no_match", "undetermined", "match"}[v] }

// outcome is a verdict with its grounds: what is missing when it is
// undetermined, and the stack conditions that hold when it is a match.
type outcome struct {
	verdict Verdict
	missing []string
	held    []*condition
}

// condition is a stack condition that was evaluated.
type condition struct {
	n       *seenNode
	hits    map[int]hit // by stack
	matched []int       // events, in order
	of      int         // events that were looked at
}

// join adds the grounds of a part that has the same verdict as the whole.
func (o *outcome) join(part outcome) {
	if part.verdict == o.verdict {
		o.missing = append(o.missing, part.missing...)
		o.held = append(o.held, part.held...)
	}
}

// evalAll evaluates all parts, even when one would decide: explain wants to know.
func evalAll(x *evaluation, of []node) []outcome {
	parts := make([]outcome, len(of))
	for i, c := range of {
		parts[i] = c.eval(x)
	}
	return parts
}

func (n *allNode) eval(x *evaluation) outcome {
	out := outcome{verdict: Match}
	parts := evalAll(x, n.of)
	for _, p := range parts {
		out.verdict = min(out.verdict, p.verdict)
	}
	for _, p := range parts {
		out.join(p)
	}
	return out
}

func (n *anyNode) eval(x *evaluation) outcome {
	out := outcome{verdict: NoMatch}
	parts := evalAll(x, n.of)
	for _, p := range parts {
		out.verdict = max(out.verdict, p.verdict)
	}
	for _, p := range parts {
		out.join(p)
	}
	return out
}

// eval of a negation holds nothing: what is absent captures no frame.
func (n *notNode) eval(x *evaluation) outcome {
	o := n.of.eval(x)
	return outcome{verdict: Match - o.verdict, missing: o.missing}
}

func (n *exprNode) eval(x *evaluation) outcome {
	ok, err := n.e.truth(x.vars)
	var unknown *errUnknown
	switch {
	case errors.As(err, &unknown):
		return outcome{verdict: Undetermined, missing: unknown.names}
	case err != nil:
		x.res.Errors = append(x.res.Errors, err.Error())
		return outcome{verdict: Undetermined}
	case ok:
		return outcome{verdict: Match}
	}
	return outcome{verdict: NoMatch}
}

// hit is how a condition fared on one distinct stack.
type hit struct {
	ok bool
	// lacks is what the stack would need to match: its end, or PHP frames.
	// "" when it matches, and when nothing would help.
	lacks    string
	unknowns int
	via      string
	captures map[string]int // name to the frame's index
}

// on matches one stack.
func (n *seenNode) on(s *sight) hit {
	var h hit
	h.ok = h.best(n.native, s, Native, false) && h.best(n.php, s, PHP, false)
	if h.ok {
		return h
	}
	var open hit
	switch {
	case s.Truncated && open.best(n.native, s, Native, true) && open.best(n.php, s, PHP, true):
		h.lacks = wholeStacks
	case s.lacksPHP() && open.best(n.native, s, Native, s.Truncated):
		h.lacks = phpFrames
	}
	return h
}

// lacksPHP reports whether PHP's interpreter was at work and its frames were
// not collected, as in a backtrace from gdb.
func (s *sight) lacksPHP() bool { return len(s.views[PHP]) == 0 && s.names["execute_ex"] }

// best takes the alternative with the fewest unknown frames. With open, frames
// beyond the last are taken to be possible.
func (h *hit) best(alts []alternative, s *sight, kind FrameKind, open bool) bool {
	if len(alts) == 0 {
		return true
	}
	var best match
	via, found := "", false
	for _, a := range alts {
		// The root of a truncated stack is nowhere to be seen.
		if a.prg.root && s.Truncated && !open || !a.prg.possible(s) {
			continue
		}
		m, ok := a.prg.run(s.Frames, s.views[kind], open)
		if ok && (!found || m.unknowns < best.unknowns) {
			best, via, found = m, a.name, true
		}
	}
	h.unknowns += best.unknowns
	if via != "" {
		h.via = via
	}
	for k, i := range best.captures {
		if h.captures == nil {
			h.captures = make(map[string]int)
		}
		h.captures[k] = i
	}
	return found
}

// about reports whether the condition looks at an event.
func (n *seenNode) about(ev *Event) bool {
	return n.in == inAny || n.in == inStops && ev.Kind == Stop || n.in == inSamples && ev.Kind == Sample
}

func (n *seenNode) eval(x *evaluation) outcome {
	c := &condition{n: n, hits: make(map[int]hit)}
	lacks := make(map[string]int)
	maybe := 0
	for i := range x.o.Events {
		ev := &x.o.Events[i]
		if !n.about(ev) {
			continue
		}
		c.of++
		h, seen := c.hits[ev.Stack]
		if !seen {
			h = n.on(x.sight(ev.Stack))
			c.hits[ev.Stack] = h
		}
		switch {
		case h.ok:
			c.matched = append(c.matched, i)
		case h.lacks != "":
			lacks[h.lacks]++
			maybe++
		}
	}
	switch {
	case c.of == 0 && n.in == inStops && len(x.o.Watched) > 0:
		return outcome{verdict: NoMatch} // it was watched for and did not happen
	case c.of == 0:
		return outcome{verdict: Undetermined, missing: []string{n.in}}
	case n.enough(len(c.matched), c.of):
		return outcome{verdict: Match, held: []*condition{c}}
	case n.enough(len(c.matched)+maybe, c.of):
		return outcome{verdict: Undetermined, missing: slices.Sorted(maps.Keys(lacks))}
	}
	return outcome{verdict: NoMatch}
}

// enough applies the quorum: without a share, one event is enough.
func (n *seenNode) enough(matched, of int) bool {
	return matched > 0 && float64(matched) >= n.share*float64(of)
}
