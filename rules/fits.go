package rules

// fits reports whether an observation shows every native stack that a rule wants, in
// its quorum, and nothing that refutes it. Of an undetermined rule that is the best
// lead there is: what it lacks is evidence beside the stacks. Whether a stack was
// seen at a breakpoint or on a timer does not matter here, which text that somebody
// pasted seldom tells.
func (x *evaluation) fits(r *Rule) bool {
	ok, some := x.fitsAt(r.match)
	return ok && some
}

// fitsAt also reports whether a native stack was asked for at all.
func (x *evaluation) fitsAt(n node) (ok, some bool) {
	switch n := n.(type) {
	case *allNode:
		for _, c := range n.of {
			fits, asked := x.fitsAt(c)
			if !fits {
				return false, false
			}
			some = some || asked
		}
		return true, some
	case *anyNode:
		for _, c := range n.of {
			if fits, asked := x.fitsAt(c); fits {
				ok, some = true, some || asked
			}
		}
		return ok, some
	case *seenNode:
		if len(n.native) > 0 {
			return x.shows(n), true
		}
	}
	return n.eval(x).verdict != NoMatch, false
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

// leads are the undetermined rules whose stacks fit, but for those that another
// one supersedes.
func leads(results []Result) {
	superseded := make(map[string]bool)
	for i := range results {
		if r := &results[i]; r.Fits {
			for _, id := range r.Rule.Supersedes {
				superseded[id] = true
			}
		}
	}
	for i := range results {
		r := &results[i]
		r.Fits = r.Fits && !superseded[r.Rule.ID]
	}
}
