package rules

import (
	"slices"
	"strings"
)

// match is one place where a pattern matches.
type match struct {
	start    int // the first frame, as an index into the view
	unknowns int // unresolved frames that stood in for a name
	captures map[string]int
}

// step is one state of the automaton: a frame test, and where to go on.
type step struct {
	e *element
	// optional states can be passed without taking a frame.
	optional bool
	loop     bool // may take any number of frames
}

// program is a compiled pattern.
type program struct {
	p     *pattern
	steps []step
	leaf  bool
	root  bool
	php   bool
	// needs lists groups of names: a stack that lacks all names of a group
	// can't match.
	needs [][]string
}

func compile(p *pattern) *program {
	g := &program{p: p, php: p.php}
	for i := range p.elements {
		e := &p.elements[i]
		g.leaf = g.leaf || e.leaf
		g.root = g.root || e.root
		if e.min > 0 && !e.unk && !e.any && !e.php && len(e.globs) == 0 {
			g.needs = append(g.needs, e.names)
		}
		for range e.min {
			g.steps = append(g.steps, step{e: e})
		}
		if e.max == unbounded {
			if e.min == 0 {
				g.steps = append(g.steps, step{e: e, optional: true, loop: true})
			} else {
				g.steps[len(g.steps)-1].loop = true
			}
			continue
		}
		for range e.max - e.min {
			g.steps = append(g.steps, step{e: e, optional: true})
		}
	}
	return g
}

// possible is a quick look at whether a stack has the names that are needed.
func (g *program) possible(s *sight) bool {
	for _, group := range g.needs {
		if !slices.ContainsFunc(group, func(n string) bool { return s.names[n] }) {
			return false
		}
	}
	return true
}

// thread is the best way to have come to a state. One thread per state is all
// that matching keeps, which bounds it by frames times states.
type thread struct {
	alive    bool
	unknowns int
	start    int
	caps     *capNode
}

type capNode struct {
	name  string
	frame int
	prev  *capNode
}

// better orders ways to the same state: the one that began nearer to the leaf,
// then the one that took fewer unknown frames. What follows a state does not
// depend on the way to it, so the worse one can be forgotten.
func (t thread) better(o thread) bool {
	if !o.alive {
		return true
	}
	if t.start != o.start {
		return t.start < o.start
	}
	return t.unknowns < o.unknowns
}

// run matches the program against the frames (indices into all) that it is
// about, and returns the best match: the one nearest to the leaf, then the
// one with the fewest unknown frames. With open, the stack goes on beyond its
// last frame, so that nothing is known to be its root.
func (g *program) run(all []Frame, view []int, open bool) (match, bool) {
	n := len(g.steps)
	both := make([]thread, 2*(n+1))
	cur, next := both[:n+1], both[n+1:]
	var best thread
	cur[0] = thread{alive: true}
	for i, fi := range view {
		g.pass(cur)
		if cur[n].alive && (!g.root || open) && cur[n].better(best) {
			best = cur[n]
		}
		clear(next)
		f, alive := &all[fi], !g.leaf && !best.alive
		for s := range n {
			t := cur[s]
			if !t.alive || !t.better(best) {
				continue // it can only become worse than the best so far
			}
			ok, unk := g.steps[s].e.test(f)
			if !ok {
				continue
			}
			alive = true
			if unk {
				t.unknowns++
			}
			if as := g.steps[s].e.as; as != "" {
				t.caps = &capNode{as, fi, t.caps}
			}
			if g.steps[s].loop {
				enter(next, s, t)
			}
			enter(next, s+1, t)
		}
		if !g.leaf {
			enter(next, 0, thread{alive: true, start: i + 1})
		}
		cur, next = next, cur
		if !alive {
			break
		}
	}
	g.pass(cur)
	if cur[n].alive && cur[n].better(best) {
		best = cur[n]
	}
	if !best.alive {
		return match{}, false
	}
	m := match{start: best.start, unknowns: best.unknowns}
	for c := best.caps; c != nil; c = c.prev {
		if m.captures == nil {
			m.captures = make(map[string]int)
		}
		m.captures[c.name] = c.frame // the innermost of several wins
	}
	return m, true
}

// enter puts a thread into a state, unless a better one is there.
func enter(set []thread, s int, t thread) {
	if t.better(set[s]) {
		set[s] = t
	}
}

// pass lets threads go past optional states. These only lead forward, so one
// sweep is enough.
func (g *program) pass(set []thread) {
	for s := range g.steps {
		if set[s].alive && g.steps[s].optional {
			enter(set, s+1, set[s])
		}
	}
}

// test reports whether a frame fits, and whether it did so unnamed.
func (e *element) test(f *Frame) (ok, unknown bool) {
	if e.php {
		return e.testPHP(f), false
	}
	if e.module != "" && !glob(e.module, f.Module) ||
		e.inlined == "only" && !f.Inlined || e.inlined == "never" && f.Inlined ||
		e.file != "" && !glob(e.file, f.File) || !e.testLine(f.Line) {
		return false, false
	}
	if e.any {
		return true, false
	}
	if f.Name == "" {
		return e.unk && !isLibc(f.Module), true
	}
	return e.testName(f.Name), false
}

func (e *element) testName(name string) bool {
	return slices.Contains(e.names, name) || slices.ContainsFunc(e.globs, func(g string) bool { return glob(g, name) })
}

func (e *element) testLine(line int) bool {
	if e.lineMin == 0 && e.lineMax == 0 {
		return true
	}
	return line >= e.lineMin && (e.lineMax == unbounded || line <= e.lineMax)
}

func (e *element) testPHP(f *Frame) bool {
	if e.internal && !f.Internal || e.user && f.Internal ||
		e.file != "" && !glob(e.file, f.File) || !e.testLine(f.Line) {
		return false
	}
	if len(e.names) == 0 {
		return true
	}
	full := f.Name
	if f.Class != "" {
		full = f.Class + "::" + f.Name
	}
	for _, n := range e.names {
		// PHP compares function and class names without case.
		subject := f.Name
		if strings.Contains(n, "::") {
			subject = full
		}
		if strings.EqualFold(n, subject) || isGlob(n) && glob(strings.ToLower(n), strings.ToLower(subject)) {
			return true
		}
	}
	return false
}

// glob matches a whole string against a pattern in which * stands for any
// characters, also slashes, and ? for one. Nothing else is special: PHP's class
// names have backslashes, and module names such as [vdso] brackets. It only
// ever goes back to the last *, so it takes time len(pattern) × len(s) at most.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, from := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func isGlob(s string) bool { return strings.ContainsAny(s, "*?") }

func isLibc(module string) bool {
	return strings.HasPrefix(module, "libc.") || strings.HasPrefix(module, "libc-") || strings.HasPrefix(module, "ld-") ||
		module == "[vdso]"
}

// view lists the frames that native or PHP patterns see.
func view(frames []Frame, kind FrameKind) []int {
	out := make([]int, 0, len(frames))
	for i := range frames {
		if frames[i].Kind == kind {
			out = append(out, i)
		}
	}
	return out
}

// sight is what all rules look at of one stack, made once.
type sight struct {
	*Stack
	views [2][]int        // by FrameKind
	names map[string]bool // of the native frames
}

func look(s *Stack) *sight {
	out := &sight{Stack: s, names: make(map[string]bool, len(s.Frames))}
	for k := range out.views {
		out.views[k] = view(s.Frames, FrameKind(k))
	}
	for _, i := range out.views[Native] {
		out.names[s.Frames[i].Name] = true
	}
	return out
}
