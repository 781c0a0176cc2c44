package rules

import (
	"math/bits"
	"slices"
)

// matcher is what a Set knows of its patterns before it sees a stack.
type matcher struct {
	// names numbers the exact names that patterns require, by FrameKind.
	names [2]map[string]int32
	progs [2][]*program
	at    map[*program]int // in progs
	needs map[*program][][]int32
}

// newMatcher numbers the names and patterns of rules.
func newMatcher(rules []*Rule) *matcher {
	m := &matcher{at: make(map[*program]int), needs: make(map[*program][][]int32)}
	for k := range m.names {
		m.names[k] = make(map[string]int32)
	}
	number := func(k FrameKind, n string) int32 {
		id, ok := m.names[k][n]
		if !ok {
			id = int32(len(m.names[k]))
			m.names[k][n] = id
		}
		return id
	}
	for _, r := range rules {
		for _, a := range r.alts {
			g := a.prg
			k := g.kind()
			m.at[g] = len(m.progs[k])
			m.progs[k] = append(m.progs[k], g)
			for _, group := range g.needs {
				ids := make([]int32, len(group))
				for i, n := range group {
					ids[i] = number(k, n)
				}
				m.needs[g] = append(m.needs[g], ids)
			}
			// A name that is not required must be known as one that a rule
			// has all the same: see bitset.other.
			for i := range g.p.elements {
				for _, n := range g.p.elements[i].names {
					number(k, n)
				}
			}
		}
	}
	return m
}

// search matches the patterns of one kind of frames against all stacks.
type search struct {
	m     *matcher
	c     *corpus
	kind  FrameKind
	lane  *lane
	progs []*program
	// post lists, by name, the patterns to be tried on stacks that have it;
	// always are those to be tried on every stack.
	post   [][]int32
	always []int32
	needs  [][][]int32      // by pattern
	wants  [][]wantedModule // by pattern
	mods   modules
	rows   [][]uint8 // by pattern and symbol: which of masks, from 1; 0 is unknown
	masks  [][]mask  // by pattern
	hits   [][]int32 // by pattern: the stacks that match, ascending
	spent  int       // bytes of rows
	// Work, to be measured.
	tried, ran, stepped []int
	// The frame that closer looked at last: its stack, from 1, which one of its
	// kind it is there, and where.
	viewed, nth, pos int
}

// mask are the states that take a symbol.
type mask uint64

const (
	// maxRow bounds the masks that a pattern's row can tell apart, maxRows all
	// rows together in bytes: a capture may have a million names.
	maxRow  = 254
	maxRows = 64 << 20
)

// sampled is how many stacks the frequency of names is taken from.
const sampled = 4096

func newSearch(m *matcher, c *corpus, kind FrameKind, wanted func(*program) bool) *search {
	s := &search{m: m, c: c, kind: kind, lane: &c.lanes[kind], progs: m.progs[kind]}
	n := len(s.progs)
	s.needs, s.rows, s.masks, s.hits, s.wants = make([][][]int32, n), make([][]uint8, n), make([][]mask, n), make([][]int32, n), make([][]wantedModule, n)
	s.tried, s.ran, s.stepped = make([]int, n), make([]int, n), make([]int, n)
	s.name()
	s.index(wanted)
	return s
}

// name finds out which symbols have names that rules have.
func (s *search) name() {
	known := func(n string) int32 {
		if id, ok := s.m.names[s.kind][n]; ok {
			return id
		}
		return -1
	}
	for i := range s.lane.symbols {
		y := &s.lane.symbols[i]
		if s.kind == Native {
			y.names[0] = known(y.frame.Name)
			continue
		}
		plain, full := phpNames(&y.frame)
		if y.names[0] = known(plain); full != plain {
			y.names[1] = known(full)
		}
	}
}

// index posts each pattern under its rarest required names.
func (s *search) index(wanted func(*program) bool) {
	often := s.frequency()
	s.post = make([][]int32, len(s.m.names[s.kind]))
	for i, g := range s.progs {
		s.needs[i], s.wants[i] = s.m.needs[g], g.wantedModules()
		if !wanted(g) || !s.lane.reaches(s.wants[i]) {
			continue
		}
		best, least := -1, 0
		for j, group := range s.needs[i] {
			sum := 0
			for _, n := range group {
				sum += often[n]
			}
			if best < 0 || sum < least {
				best, least = j, sum
			}
		}
		if best < 0 {
			s.always = append(s.always, int32(i))
			continue
		}
		for _, n := range s.needs[i][best] {
			s.post[n] = append(s.post[n], int32(i))
		}
	}
}

// frequency counts, by name, the frames of some stacks that have it.
func (s *search) frequency() []int {
	out := make([]int, len(s.m.names[s.kind]))
	n := len(s.lane.start) - 1
	for i := 0; i < n; i += max(1, n/sampled) {
		for _, id := range s.lane.of(i) {
			for _, name := range s.lane.symbols[id].names {
				if name >= 0 {
					out[name]++
				}
			}
		}
	}
	return out
}

// required lists, by symbol, the names that some pattern which is wanted
// requires; most frames have none.
func (s *search) required() [][2]int32 {
	due := make([]bool, len(s.post))
	for n, post := range s.post {
		for _, i := range post {
			due[n] = true
			for _, group := range s.needs[i] {
				for _, other := range group {
					due[other] = true
				}
			}
		}
	}
	out := make([][2]int32, len(s.lane.symbols))
	for i := range s.lane.symbols {
		out[i] = s.lane.symbols[i].names
		for j, n := range out[i] {
			if n >= 0 && !due[n] {
				out[i][j] = -1
			}
		}
	}
	return out
}

// run fills in hits.
func (s *search) run() {
	if len(s.progs) == 0 {
		return
	}
	listed := s.required()
	names := 1 // of a symbol
	if s.kind == PHP {
		names = 2
	}
	seen := make([]uint32, len(s.post)) // by name: the last stack that has it, from 1
	due := make([]uint32, len(s.progs)) // by pattern: the last stack it was tried on
	var candidates []int32
	for stack := range len(s.lane.start) - 1 {
		now := uint32(stack) + 1
		seq := s.lane.of(stack)
		if len(seq) == 0 {
			continue // every pattern wants a frame
		}
		candidates = append(candidates[:0], s.always...)
		for _, id := range seq {
			for _, name := range listed[id][:names] {
				if name >= 0 && seen[name] != now {
					seen[name] = now
					candidates = append(candidates, s.post[name]...)
				}
			}
		}
		for _, i := range candidates {
			if due[i] == now {
				continue
			}
			due[i] = now
			s.tried[i]++
			if complete(s.needs[i], seen, now) && s.reaches(int(i), stack, seq) && s.match(int(i), stack, seq) {
				s.hits[i] = append(s.hits[i], int32(stack))
			}
		}
	}
}

// complete reports whether a stack has a name of every group.
func complete(groups [][]int32, seen []uint32, now uint32) bool {
	for _, group := range groups {
		if !slices.ContainsFunc(group, func(n int32) bool { return seen[n] == now }) {
			return false
		}
	}
	return true
}

// match runs one pattern over one stack: yes or no.
func (s *search) match(i, stack int, seq []uint32) bool {
	g := s.progs[i]
	s.ran[i]++
	if g.root && s.c.truncated(stack) {
		return false // its root is nowhere to be seen
	}
	if !g.bits.ok {
		s.stepped[i] += len(seq)
		frames, view := s.c.view(s.kind, stack)
		_, ok := g.run(frames, view)
		return ok
	}
	return s.matchBits(i, g, stack, seq)
}

// matchBits keeps the states that are alive in one word. All of them take a
// step at once, so a frame costs the same however many ways there are.
func (s *search) matchBits(i int, g *program, stack int, seq []uint32) bool {
	b := &g.bits
	final := uint64(1) << len(g.steps)
	// pass adds the states behind optional ones: the carry of the sum runs to
	// the end of a row of them (Navarro and Raffinot, Flexible Pattern
	// Matching in Strings, 4.4).
	pass := func(d uint64) uint64 { return d | (((d & b.optional) + b.optional) ^ b.optional) }
	alive := uint64(1)
	for at, id := range seq {
		d := pass(alive)
		if d&final != 0 && !g.root {
			return true
		}
		s.stepped[i]++
		d &= uint64(s.mask(i, g, id))
		if closer := d & b.attrs; closer != 0 {
			d = g.closer(d, closer, s.frame(stack, at, id))
		}
		alive = d<<1 | d&b.loop
		if !g.leaf {
			alive |= 1
		} else if alive == 0 {
			return false
		}
	}
	return pass(alive)&final != 0
}

// closer drops the states whose line looks at where a frame is, and does not
// like what it sees.
func (g *program) closer(d, closer uint64, f *Frame) uint64 {
	for closer != 0 {
		state := bits.TrailingZeros64(closer)
		closer &= closer - 1
		if !g.steps[state].e.testAttributes(f) {
			d &^= 1 << state
		}
	}
	return d
}

// frame is the frame of a stack that is number at of its kind, and has a symbol.
func (s *search) frame(stack, at int, id uint32) *Frame {
	if s.c.o.Stacks == nil {
		return &s.lane.symbols[id].frame // of a benchmark, see corpus.view
	}
	if s.viewed != stack+1 || s.nth > at {
		s.viewed, s.nth, s.pos = stack+1, -1, -1
	}
	frames := s.c.o.Stacks[stack].Frames
	for s.nth < at {
		s.pos++
		if frames[s.pos].Kind == s.kind {
			s.nth++
		}
	}
	return &frames[s.pos]
}

// mask are the states that take a symbol, found out once for each.
func (s *search) mask(i int, g *program, id uint32) mask {
	y := &s.lane.symbols[id]
	if !g.bits.globs && y.names[0] < 0 && y.frame.Name != "" {
		return mask(g.bits.other)
	}
	if s.rows[i] == nil {
		if s.spent += len(s.lane.symbols); s.spent > maxRows {
			return g.mask(&y.frame)
		}
		s.rows[i] = make([]uint8, len(s.lane.symbols))
	}
	if class := s.rows[i][id]; class != 0 {
		return s.masks[i][class-1]
	}
	m := g.mask(&y.frame)
	at := slices.Index(s.masks[i], m)
	if at < 0 {
		if len(s.masks[i]) == maxRow {
			return m
		}
		at = len(s.masks[i])
		s.masks[i] = append(s.masks[i], m)
	}
	s.rows[i][id] = uint8(at + 1)
	return m
}

// mask tests the name of a frame against every state.
func (g *program) mask(f *Frame) mask {
	var m mask
	for s := range g.steps {
		e := g.steps[s].e
		if s > 0 && g.steps[s-1].e == e {
			m |= (m >> (s - 1) & 1) << s
			continue
		}
		if ok, _ := e.testSymbol(f); ok {
			m |= 1 << s
		}
	}
	return m
}
