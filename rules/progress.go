package rules

// progress is the furthest that a program got on a stack it does not match.
type progress struct {
	element int // the element that no frame met; len(elements) for a root that is none
	frame   int // the frame that stands there, as an index into the view; -1 when the stack ends
}

// progress follows all ways at once, as run does, and keeps the one that met
// most lines, then the one that took most frames.
func (g *program) progress(all []Frame, view []int) progress {
	n := len(g.steps)
	cur, next := make([]bool, n+1), make([]bool, n+1)
	cur[0] = true
	best := progress{element: -1}
	for i := 0; i <= len(view); i++ {
		top := -1
		for s := range n {
			if cur[s] {
				top = s
				if g.steps[s].optional {
					cur[s+1] = true
				}
			}
		}
		if cur[n] {
			top = n
		}
		if top < 0 {
			break
		}
		at := i
		if i == len(view) {
			at = -1
		}
		if e := g.elementOf(top); e > best.element || e == best.element && e > 0 {
			best = progress{e, at}
		}
		if i == len(view) {
			break
		}
		clear(next)
		for s := range n {
			if !cur[s] {
				continue
			}
			if ok, _ := g.steps[s].e.test(&all[view[i]]); ok {
				next[s+1] = true
				next[s] = next[s] || g.steps[s].loop
			}
		}
		next[0] = next[0] || !g.leaf
		cur, next = next, cur
	}
	return best
}

// elementOf is the index of a state's frame line.
func (g *program) elementOf(state int) int {
	if state == len(g.steps) {
		return len(g.p.elements)
	}
	for i := range g.p.elements {
		if &g.p.elements[i] == g.steps[state].e {
			return i
		}
	}
	return 0
}
