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
	// can't match. Those of PHP patterns are in lower case.
	needs [][]string
	bits  bitset
}

// bitset is a program whose states fit into one word: bit s is state s.
type bitset struct {
	ok       bool   // it fits
	optional uint64 // states that can be passed
	loop     uint64 // states that may take any number of frames
	attrs    uint64 // states that look at more of a frame than its symbol
	// other are the states that take a frame whose name no rule has. With
	// globs it must be found out for each name.
	other uint64
	globs bool
}

func compile(p *pattern) *program {
	g := &program{p: p, php: p.php}
	for i := range p.elements {
		e := &p.elements[i]
		g.leaf = g.leaf || e.leaf
		g.root = g.root || e.root
		if group := e.required(); group != nil {
			g.needs = append(g.needs, group)
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
	g.bits = g.bitset()
	return g
}

// required are exact names of which a stack must have one for the line to
// match; nil when it can match without.
func (e *element) required() []string {
	if e.min == 0 || e.unk || e.any || len(e.globs) > 0 || len(e.names) == 0 {
		return nil
	}
	if e.php && slices.ContainsFunc(e.names, isGlob) {
		return nil
	}
	return e.names
}

func (g *program) bitset() bitset {
	b := bitset{ok: len(g.steps) < 64}
	if !b.ok {
		return b
	}
	for s, st := range g.steps {
		bit := uint64(1) << s
		if st.optional {
			b.optional |= bit
		}
		if st.loop {
			b.loop |= bit
		}
		if st.e.looksCloser() {
			b.attrs |= bit
		}
		if st.e.any || st.e.php && len(st.e.names) == 0 {
			b.other |= bit
		}
		b.globs = b.globs || len(st.e.globs) > 0 || st.e.php
	}
	return b
}

// looksCloser reports whether a line looks at more of a frame than its symbol.
func (e *element) looksCloser() bool {
	return e.module != "" || e.file != "" || e.inlined == "only" || e.inlined == "never" || e.lineMin != 0 || e.lineMax != 0
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
// one with the fewest unknown frames.
func (g *program) run(all []Frame, view []int) (match, bool) {
	n := len(g.steps)
	both := make([]thread, 2*(n+1))
	cur, next := both[:n+1], both[n+1:]
	var best thread
	cur[0] = thread{alive: true}
	for i, fi := range view {
		g.pass(cur)
		if cur[n].alive && !g.root && cur[n].better(best) {
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

// maybe reports whether the program, which does not match these frames, could
// match with more of them behind the last: it is in the middle of a match, or
// wants the root, which is not among them.
func (g *program) maybe(all []Frame, view []int) bool {
	if len(view) == 0 || g.root && !g.leaf {
		return true
	}
	n := len(g.steps)
	cur, next := make([]bool, n+1), make([]bool, n+1)
	for i, fi := range view {
		if i == 0 || !g.leaf {
			cur[0] = true
		}
		clear(next)
		alive := false
		for s := range n {
			if !cur[s] {
				continue
			}
			if g.steps[s].optional {
				cur[s+1] = true
			}
			if ok, _ := g.steps[s].e.test(&all[fi]); ok {
				next[s+1], alive = true, true
				next[s] = next[s] || g.steps[s].loop
			}
		}
		if !alive && (g.leaf || i == len(view)-1) {
			return false
		}
		cur, next = next, cur
	}
	return true
}

// test reports whether a frame fits, and whether it did so unnamed.
func (e *element) test(f *Frame) (ok, unknown bool) {
	if !e.testAttributes(f) {
		return false, false
	}
	return e.testSymbol(f)
}

// testAttributes looks at where a frame is.
func (e *element) testAttributes(f *Frame) bool {
	return (e.module == "" || glob(e.module, f.Module)) &&
		(e.inlined != "only" || f.Inlined) && (e.inlined != "never" || !f.Inlined) &&
		(e.file == "" || glob(e.file, f.File)) && e.testLine(f.Line)
}

// testSymbol looks at what a frame is called.
func (e *element) testSymbol(f *Frame) (ok, unknown bool) {
	switch {
	case e.php:
		return e.testPHP(f), false
	case e.any:
		return true, false
	case f.Name == "":
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
	if e.internal && !f.Internal || e.user && f.Internal {
		return false
	}
	if len(e.names) == 0 {
		return true
	}
	plain, full := phpNames(f)
	for _, n := range e.names {
		subject := plain
		if strings.Contains(n, "::") {
			subject = full
		}
		if n == subject || isGlob(n) && glob(n, subject) {
			return true
		}
	}
	return false
}

// phpNames are a function's name without and with its class. PHP compares
// names without case, of ASCII letters alone.
func phpNames(f *Frame) (plain, full string) {
	plain = lower(f.Name)
	if f.Class == "" {
		return plain, plain
	}
	return plain, lower(f.Class) + "::" + plain
}

// lower turns ASCII capitals into small letters.
func lower(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return 'A' <= r && r <= 'Z' }) < 0 {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
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

// sight is a stack with its frames sorted by kind.
type sight struct {
	*Stack
	views [2][]int // by FrameKind
}

func look(s *Stack) *sight {
	out := &sight{Stack: s}
	for k := range out.views {
		out.views[k] = view(s.Frames, FrameKind(k))
	}
	return out
}
