package triage

import (
	"cmp"
	"slices"
	"strings"

	"github.com/phpwhy/phpwhy/rules"
)

const (
	// nearEnough is how near a rule must be to be worth a mention: its stack is there, and
	// measurements are missing.
	nearEnough = 0.6
	// maxOpen is how many rules are mentioned of a group.
	maxOpen = 3
)

// The ways to collect from many workers what one short look does not tell.
const (
	lookLonger = "look several times: --every 500ms --for 3s"
	stopThere  = "stop at the calls: --break mmap,mremap"
)

// undecided is a rule that could not be decided, and how near it came.
type undecided struct {
	Undetermined
	near float64
}

// likely are the rules that lack nothing but measurements.
func likely(rs []rules.Result) []undecided {
	var out []undecided
	for i := range rs {
		r := &rs[i]
		if r.Verdict != rules.Undetermined || r.Near < nearEnough || len(r.Missing) == 0 || r.Skipped != "" || r.Rule.Kind == rules.Benign {
			continue
		}
		out = append(out, undecided{Undetermined{Rule: r.Rule.ID, Missing: r.Missing, How: how(r.Missing)}, r.Near})
	}
	return out
}

// how says how to collect what is missing.
func how(missing []string) string {
	s := ""
	for _, m := range missing {
		switch {
		case strings.HasPrefix(m, "stops "), strings.HasPrefix(m, "chain."), strings.HasPrefix(m, "event."), strings.HasPrefix(m, "rate.stops"):
			return stopThere
		case strings.HasPrefix(m, "stack."), strings.HasPrefix(m, "wait."), strings.HasPrefix(m, "proc.cpu"),
			strings.HasPrefix(m, "proc.runnable"), strings.HasPrefix(m, "proc.read"), strings.HasPrefix(m, "rate."):
			s = lookLonger
		}
	}
	return s
}

// lacking mentions the rules that may explain a group which none explains.
func (s *sorter) lacking(g *Group) {
	g.Undetermined = []Undetermined{}
	if g.Rule != "" {
		return
	}
	var all []undecided
	by := make(map[string]int)
	for _, w := range g.Workers {
		for _, u := range s.open[w] {
			at, ok := by[u.Rule]
			if !ok {
				by[u.Rule] = len(all)
				all = append(all, u)
			} else if u.near > all[at].near {
				all[at] = u
			}
		}
	}
	slices.SortStableFunc(all, func(a, b undecided) int { return cmp.Compare(b.near, a.near) })
	for _, u := range all[:min(len(all), maxOpen)] {
		g.Undetermined = append(g.Undetermined, u.Undetermined)
	}
}

// Rank says how much a group matters: 0 for a cause, 1 for a wait that no rule
// explains, 2 for what nothing explains, 3 for the healthy.
func (g *Group) Rank() int {
	switch {
	case g.Kind == string(rules.Benign):
		return 3
	case g.Rule != "":
		return 0
	case len(g.Waits) > 0:
		return 1
	}
	return 2
}

// Lacks says in one line what the rule lacks and how to collect it.
func (u *Undetermined) Lacks() string {
	var names []string
	for _, m := range u.Missing {
		name, _, _ := strings.Cut(m, " (needs")
		names = append(names, name)
	}
	s := u.Rule + " lacks " + strings.Join(names, ", ")
	if u.How != "" {
		s += "; " + u.How
	}
	return s
}
