package rules

import (
	"cmp"
	"slices"
)

// maxVoters bounds the distinct stacks that are asked where a match lies: a
// place that ten thousand stacks agree on is not changed by more of them.
const maxVoters = 10_000

// voters are the stacks of a condition, the most frequent first.
func (x *evaluation) voters(c *condition) []int32 {
	if len(c.stacks) <= maxVoters {
		return c.stacks
	}
	out := slices.Clone(c.stacks)
	slices.SortStableFunc(out, func(a, b int32) int {
		return cmp.Compare(c.n.weight(x.c, int(b)), c.n.weight(x.c, int(a)))
	})
	return out[:maxVoters]
}

// votes are the ways in which the conditions match, with how many events each
// stands for.
func (x *evaluation) votes() [][]vote {
	out := make([][]vote, len(x.held))
	for i, c := range x.held {
		for _, s := range x.voters(c) {
			stack := &x.o.Stacks[s]
			out[i] = append(out[i], vote{stack, c.n.on(look(stack)), c.n.weight(x.c, int(s))})
		}
	}
	return out
}

type vote struct {
	s *Stack
	hit
	weight int
}

// elect finds, for each capture, the place that most events captured.
func elect(conditions [][]vote) map[string]Site {
	votes := make(map[string]map[Site]int)
	for _, vs := range conditions {
		for _, v := range vs {
			for name, i := range v.captures {
				if votes[name] == nil {
					votes[name] = make(map[Site]int)
				}
				fr := &v.s.Frames[i]
				votes[name][Site{fr.Name, fr.Class, fr.File, fr.Line}] += v.weight
			}
		}
	}
	elected := make(map[string]Site, len(votes))
	for name, v := range votes {
		most := 0
		for s, n := range v {
			if n > most || n == most && s.less(elected[name]) {
				elected[name], most = s, n
			}
		}
	}
	return elected
}

// via is the alternative that most events matched by.
func via(conditions [][]vote) string {
	count := make(map[string]int)
	for _, vs := range conditions {
		for _, v := range vs {
			if v.via != "" {
				count[v.via] += v.weight
			}
		}
	}
	best := ""
	for v, n := range count {
		if n > count[best] || n == count[best] && v < best {
			best = v
		}
	}
	return best
}

// unknowns is the mean number of unknown frames that stood in for a name, of
// the condition with most of them.
func unknowns(conditions [][]vote) float64 {
	most := 0.0
	for _, vs := range conditions {
		sum, events := 0, 0
		for _, v := range vs {
			sum += v.unknowns * v.weight
			events += v.weight
		}
		most = max(most, float64(sum)/float64(max(1, events)))
	}
	return most
}
