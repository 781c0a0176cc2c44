package rules

// naive matches by trying everything, which is right and slow: the tests hold
// the matcher against it, and "rules bench" measures it. It returns the match
// with the least start, and of those one with the fewest unknown frames.
func naive(p *pattern, fs []Frame) (m match, ok bool) {
	root := p.elements[len(p.elements)-1].root
	var from func(e, taken, at int) (int, bool)
	from = func(e, taken, at int) (best int, found bool) {
		better := func(u int, ok bool) {
			if ok && (!found || u < best) {
				best, found = u, true
			}
		}
		if e == len(p.elements) {
			return 0, !root || at == len(fs)
		}
		el := &p.elements[e]
		if taken >= el.min {
			better(from(e+1, 0, at))
		}
		if at < len(fs) && (el.max == unbounded || taken < el.max) {
			if ok, unk := el.test(&fs[at]); ok {
				u, ok := from(e, taken+1, at+1)
				if unk {
					u++
				}
				better(u, ok)
			}
		}
		return best, found
	}
	for start := 0; start <= len(fs); start++ {
		if u, ok := from(0, 0, start); ok {
			return match{start: start, unknowns: u}, true
		}
		if p.elements[0].leaf {
			break
		}
	}
	return match{}, false
}
