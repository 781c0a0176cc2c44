package rules

// Covered is one alternative, and how often it matched.
type Covered struct {
	Rule        *Rule
	Alternative string // its name; stack or php for the only one
	Line        int    // of its first frame line in the rule's file
	Stacks      int    // distinct stacks that it matches
}

// Coverage says which alternatives of the rules match some stack of an
// observation, in the order of the rules and of their files. Rules for other
// targets are left out.
func (s *Set) Coverage(o *Observation) ([]Covered, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	x := s.evaluation(o)
	var out []Covered
	for _, r := range s.rules {
		if ok, _ := r.applies.to(&o.Target); !ok {
			continue
		}
		r.match.walk(func(n node) {
			c, ok := n.(*seenNode)
			if !ok {
				return
			}
			for _, alts := range [][]alternative{c.native, c.php} {
				for i := range alts {
					out = append(out, Covered{r, alts[i].title(), alts[i].at.line, x.covered(c, &alts[i])})
				}
			}
		})
	}
	return out, nil
}

// covered counts the stacks that an alternative matches, among those that its
// condition looks at.
func (x *evaluation) covered(n *seenNode, a *alternative) int {
	s := x.search[a.prg.kind()]
	at, count := s.m.at[a.prg], 0
	for i := range x.o.Stacks {
		if n.weight(x.c, i) > 0 && s.match(at, i, s.lane.of(i)) {
			count++
		}
	}
	return count
}

// Alternatives lists the patterns of a rule as Coverage names them.
func (r *Rule) Alternatives() []Covered {
	out := make([]Covered, len(r.alts))
	for i, a := range r.alts {
		out[i] = Covered{Rule: r, Alternative: a.title(), Line: a.at.line}
	}
	return out
}
