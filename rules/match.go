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
	stacks  []int32 // that match, ascending
	matched int     // events
	of      int     // events that were looked at
}

// join adds the grounds of a part that has the same verdict as the whole.
func (o *outcome) join(part outcome) {
	if part.verdict == o.verdict {
		o.missing = append(o.missing, part.missing...)
		o.held = append(o.held, part.held...)
	}
}

func (n *allNode) eval(x *evaluation) outcome {
	out := outcome{verdict: Match}
	parts := make([]outcome, 0, len(n.of))
	// Expressions come last: where a stack decides, they need not be compiled.
	for _, late := range []bool{false, true} {
		for _, c := range n.of {
			if _, is := c.(*exprNode); is != late {
				continue
			}
			p := c.eval(x)
			if p.verdict == NoMatch {
				return p
			}
			out.verdict = min(out.verdict, p.verdict)
			parts = append(parts, p)
		}
	}
	for _, p := range parts {
		out.join(p)
	}
	return out
}

func (n *anyNode) eval(x *evaluation) outcome {
	out := outcome{verdict: NoMatch}
	parts := make([]outcome, len(n.of))
	for i, c := range n.of {
		parts[i] = c.eval(x)
	}
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
		if msg := err.Error(); !slices.Contains(x.res.Errors, msg) { // it may be looked at again
			x.res.Errors = append(x.res.Errors, msg)
		}
		return outcome{verdict: Undetermined}
	case ok:
		return outcome{verdict: Match}
	}
	return outcome{verdict: NoMatch}
}

// hit is how a condition matches one distinct stack.
type hit struct {
	ok       bool
	unknowns int
	via      string
	captures map[string]int // name to the frame's index
}

// on matches one stack, and keeps what it took.
func (n *seenNode) on(s *sight) hit {
	var h hit
	h.ok = h.best(n.native, s, Native) && h.best(n.php, s, PHP)
	return h
}

// best takes the alternative with the fewest unknown frames.
func (h *hit) best(alts []alternative, s *sight, kind FrameKind) bool {
	if len(alts) == 0 {
		return true
	}
	var best match
	via, found := "", false
	for _, a := range alts {
		// The root of a truncated stack is nowhere to be seen.
		if a.prg.root && s.Truncated {
			continue
		}
		m, ok := a.prg.run(s.Frames, s.views[kind])
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

// weight is how many events with a stack the condition looks at.
func (n *seenNode) weight(c *corpus, stack int) int {
	switch n.in {
	case inStops:
		return c.stops[stack]
	case inSamples:
		return c.samples[stack]
	}
	return c.stops[stack] + c.samples[stack]
}

// total is how many events the condition looks at.
func (n *seenNode) total(c *corpus) int {
	switch n.in {
	case inStops:
		return c.allStops
	case inSamples:
		return c.allSamples
	}
	return c.allStops + c.allSamples
}

// look finds the stacks that match.
func (n *seenNode) look(x *evaluation) *condition {
	c := &condition{n: n, of: n.total(x.c)}
	var stacks []int32
	if len(n.native) == 0 {
		stacks = x.search[PHP].union(n.php)
	} else {
		stacks = x.search[Native].union(n.native)
	}
	for _, s := range stacks {
		w := n.weight(x.c, int(s))
		if w == 0 || len(n.native) > 0 && len(n.php) > 0 && !x.search[PHP].any(n.php, int(s)) {
			continue
		}
		c.stacks = append(c.stacks, s)
		c.matched += w
	}
	return c
}

// union lists the stacks that some alternative matches.
func (s *search) union(alts []alternative) []int32 {
	if len(alts) == 1 {
		return s.hits[s.m.at[alts[0].prg]]
	}
	var out []int32
	for i := range alts {
		out = append(out, s.hits[s.m.at[alts[i].prg]]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// any reports whether some alternative matches one stack.
func (s *search) any(alts []alternative, stack int) bool {
	seq := s.lane.of(stack)
	return slices.ContainsFunc(alts, func(a alternative) bool { return s.match(s.m.at[a.prg], stack, seq) })
}

func (n *seenNode) eval(x *evaluation) outcome {
	c := n.look(x)
	unwatched := n.unwatched(x.o)
	switch {
	case c.of == 0 && n.in == inStops && len(x.o.Watched) > 0 && len(unwatched) == 0:
		return outcome{verdict: NoMatch} // it was watched for and did not happen
	case c.of == 0 && len(unwatched) > 0:
		return outcome{verdict: Undetermined, missing: unwatched}
	case c.of == 0:
		return outcome{verdict: Undetermined, missing: []string{n.in}}
	case n.enough(c.matched, c.of):
		return outcome{verdict: Match, held: []*condition{c}}
	}
	lacks, maybe := n.lacks(x, c)
	if n.enough(c.matched+maybe, c.of) {
		return outcome{verdict: Undetermined, missing: slices.Sorted(maps.Keys(lacks))}
	}
	if len(unwatched) > 0 {
		return outcome{verdict: Undetermined, missing: unwatched}
	}
	return outcome{verdict: NoMatch}
}

// unwatched lists, as what is missing, the functions at which a stop could have
// matched and that had no breakpoint, where others had. A pattern that any function
// can be the leaf of names none.
func (n *seenNode) unwatched(o *Observation) []string {
	if n.in != inStops || len(o.Watched) == 0 {
		return nil
	}
	var out []string
	for i := range n.native {
		for _, name := range n.native[i].prg.p.leaves() {
			if what := onSymbol + name; !watches(o, name) && !slices.Contains(out, what) {
				out = append(out, what)
			}
		}
	}
	return out
}

// lacks counts the events whose stacks do not match and could with what was
// not collected: frames beyond the last, or PHP frames.
func (n *seenNode) lacks(x *evaluation, c *condition) (lacks map[string]bool, events int) {
	lacks = make(map[string]bool)
	open := func(i int) bool {
		s := x.sight(i)
		return s.Truncated && couldAll(n.native, s, Native, true) && couldAll(n.php, s, PHP, true)
	}
	try := func(stacks []int, what string, could func(i int) bool) {
		for _, i := range stacks {
			w := n.weight(x.c, i)
			if w == 0 || slicesHas(c.stacks, int32(i)) || !could(i) {
				continue
			}
			lacks[what] = true
			events += w
		}
	}
	try(x.c.open, wholeStacks, open)
	if len(n.php) > 0 {
		try(x.c.dark, phpFrames, func(i int) bool {
			s := x.sight(i)
			return !open(i) && couldAll(n.native, s, Native, s.Truncated)
		})
	}
	return lacks, events
}

func slicesHas(sorted []int32, v int32) bool {
	_, ok := slices.BinarySearch(sorted, v)
	return ok
}

// couldAll reports whether some alternative matches, or with open could match
// if the stack went on.
func couldAll(alts []alternative, s *sight, kind FrameKind, open bool) bool {
	return len(alts) == 0 || slices.ContainsFunc(alts, func(a alternative) bool {
		if !a.prg.root || !s.Truncated {
			if _, ok := a.prg.run(s.Frames, s.views[kind]); ok {
				return true
			}
		}
		return open && a.prg.maybe(s.Frames, s.views[kind])
	})
}

// enough applies the quorum: without a share, one event is enough.
func (n *seenNode) enough(matched, of int) bool {
	return matched > 0 && float64(matched) >= n.share*float64(of)
}
