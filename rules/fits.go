package rules

import "slices"

// fits reports whether an observation shows every native stack that a rule wants, in
// its quorum, and nothing that refutes it. Of an undetermined rule that is the best
// lead there is: what it lacks is evidence beside the stacks. Whether a stack was
// seen at a breakpoint or on a timer does not matter here, which text that somebody
// pasted seldom tells.
func (x *evaluation) fits(r *Rule) bool {
	ok, some := x.stacksFit(r.match)
	return ok && some && !x.refuted(r.match)
}

// stacksFit reports whether the native stacks that a condition wants are there, and
// whether it wants any. Of nearly all rules the answer is no, so this comes first: it
// looks at what is known of the stacks already.
func (x *evaluation) stacksFit(n node) (ok, some bool) {
	switch n := n.(type) {
	case *allNode:
		for _, c := range n.of {
			fits, wants := x.stacksFit(c)
			if !fits {
				return false, false
			}
			some = some || wants
		}
		return true, some
	case *anyNode:
		for _, c := range n.of {
			if fits, wants := x.stacksFit(c); fits {
				ok, some = true, some || wants
			}
		}
		return ok, some
	case *seenNode:
		if len(n.native) > 0 {
			return x.shows(n), true
		}
	}
	return true, false
}

// refuted reports whether something else than a native stack speaks against a condition.
func (x *evaluation) refuted(n node) bool {
	switch n := n.(type) {
	case *allNode:
		return slices.ContainsFunc(n.of, x.refuted)
	case *anyNode:
		return !slices.ContainsFunc(n.of, func(c node) bool {
			ok, _ := x.stacksFit(c)
			return ok && !x.refuted(c)
		})
	case *seenNode:
		if len(n.native) > 0 {
			return false
		}
	}
	return n.eval(x).verdict == NoMatch
}

// shows reports whether enough of all stacks match a condition's native patterns.
func (x *evaluation) shows(n *seenNode) bool {
	any := *n
	any.in = inAny
	matched := 0
	for _, s := range x.search[Native].union(n.native) {
		matched += any.weight(x.c, int(s))
	}
	return n.enough(matched, any.total(x.c))
}

// everywhere is a function that nearly every stack of PHP has, so that to ask for it is
// to ask for nothing.
const everywhere = "execute_ex"

// specific is the most that a pattern which some stack matches asks for by name.
func (x *evaluation) specific(n node) (most float64) {
	n.walk(func(n node) {
		s, ok := n.(*seenNode)
		if !ok {
			return
		}
		for i := range s.native {
			if len(x.search[Native].union(s.native[i:i+1])) == 0 {
				continue
			}
			sum := 0.0
			for _, names := range s.native[i].prg.needs {
				if len(names) > 0 && !slices.Contains(names, everywhere) {
					sum += 1 / float64(len(names))
				}
			}
			most = max(most, sum)
		}
	})
	return most
}

// leads are the undetermined rules whose stacks fit, but for those that another
// one supersedes: one that asks for less by name knows too little for that.
func leads(results []Result) {
	most := make(map[string]float64) // of those that supersede a rule
	for i := range results {
		if r := &results[i]; r.Fits {
			for _, id := range r.Rule.Supersedes {
				if m, ok := most[id]; !ok || r.Specific > m {
					most[id] = r.Specific
				}
			}
		}
	}
	for i := range results {
		r := &results[i]
		if m, ok := most[r.Rule.ID]; ok && m >= r.Specific {
			r.Fits = false
		}
	}
}
