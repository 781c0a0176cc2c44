package rules

// corpus is an observation's stacks as numbers. All rules share it, so that a
// name is looked at once and not once per rule and frame.
type corpus struct {
	o *Observation // its Stacks are nil when the numbers are all there is
	// lanes are the native and the PHP frames, by FrameKind.
	lanes [2]lane
	// stops and samples count the events of each stack.
	stops, samples       []int
	allStops, allSamples int
	// open are the stacks with frames that were not read, dark those in which
	// PHP's interpreter is at work and no PHP frame is known.
	open, dark []int
}

// lane is one kind of frames of all stacks.
type lane struct {
	symbols []symbol
	named   map[string]uint32    // of native functions
	recent  []recent             // of these the latest, by slot
	blank   [2]uint32            // of native functions without a name, from 1: libc's are the second
	ids     map[symbolKey]uint32 // of PHP functions
	modules map[string]bool      // that native frames are in
	module  string               // of them, the one seen last
	start   []int                // of each stack in seq, and the end of the last
	seq     []uint32             // symbols, leaf first
}

// symbol is what a pattern's names are compared with. Frames of one symbol
// differ in module, file and line only.
type symbol struct {
	frame Frame // one that has it
	// names are the numbers of its name among those that rules have, of PHP
	// also of the name with its class; -1 for none.
	names [2]int32
}

type symbolKey struct {
	name, class string
	internal    bool
}

// recent is a function that was seen lately. Asking a map costs more than all else
// that is done to a frame.
type recent struct {
	name string
	id   uint32
}

const (
	// slotBits are the bits of slot.
	slotBits = 14
	// manyFrames are as many as make up for the time that it takes to clear the
	// table of the recent ones.
	manyFrames = 4 << slotBits
)

// slot is a name's place among the recent: a hash of its length and its last
// eight bytes, in which functions differ most.
func slot(name string) uint64 {
	h := uint64(len(name))
	if n := len(name); n >= 8 {
		e := name[n-8:]
		h += uint64(e[0]) | uint64(e[1])<<8 | uint64(e[2])<<16 | uint64(e[3])<<24 | uint64(e[4])<<32 | uint64(e[5])<<40 | uint64(e[6])<<48 | uint64(e[7])<<56
	} else {
		for i := range n {
			h = h<<8 | uint64(name[i])
		}
	}
	return h * 0x9e3779b97f4a7c15 >> (64 - slotBits)
}

// intern turns the stacks of an observation into numbers.
func intern(o *Observation) *corpus {
	c := &corpus{o: o, stops: make([]int, len(o.Stacks)), samples: make([]int, len(o.Stacks))}
	for i := range o.Events {
		if ev := &o.Events[i]; ev.Kind == Stop {
			c.stops[ev.Stack]++
			c.allStops++
		} else {
			c.samples[ev.Stack]++
			c.allSamples++
		}
	}
	frames := 0
	for i := range o.Stacks {
		frames += len(o.Stacks[i].Frames)
	}
	for k := range c.lanes {
		c.lanes[k].start = append(make([]int, 0, len(o.Stacks)+1), 0)
	}
	native, php := &c.lanes[Native], &c.lanes[PHP]
	native.seq = make([]uint32, 0, frames) // most are
	if frames >= manyFrames {
		native.recent = make([]recent, 1<<slotBits)
	}
	var near neighbour
	for i := range o.Stacks {
		s := &o.Stacks[i]
		engine := false
		for j := range s.Frames {
			f := &s.Frames[j]
			engine = engine || f.Kind == Native && f.Name == "execute_ex"
			if f.Kind == Native {
				native.note(f.Module)
				native.seq = append(native.seq, native.intern(f))
			} else {
				php.seq = append(php.seq, near.intern(php, f))
			}
		}
		near = neighbour{php.start[i], len(php.seq)}
		for k := range c.lanes {
			l := &c.lanes[k]
			l.start = append(l.start, len(l.seq))
		}
		if s.Truncated {
			c.open = append(c.open, i)
		}
		if engine && len(c.lanes[PHP].of(i)) == 0 {
			c.dark = append(c.dark, i)
		}
	}
	return c
}

// neighbour reads along in the stack before, with which a stack has most of its
// PHP frames in common.
type neighbour struct{ at, end int } // in lane.seq

// ahead is how far a neighbour looks for its place after a difference.
const ahead = 8

func (n *neighbour) intern(l *lane, f *Frame) uint32 {
	if n.at < n.end {
		if id := l.seq[n.at]; l.symbols[id].fits(f) {
			n.at++
			return id
		}
	}
	id := l.intern(f)
	for q := n.at; q < min(n.end, n.at+ahead); q++ {
		if l.seq[q] == id {
			n.at = q + 1
			break
		}
	}
	return id
}

// fits reports whether a PHP frame has the symbol.
func (s *symbol) fits(f *Frame) bool {
	o := &s.frame
	return o.Name == f.Name && o.Class == f.Class && o.Internal == f.Internal
}

func (l *lane) intern(f *Frame) uint32 {
	if l.ids == nil {
		l.named, l.ids = make(map[string]uint32), make(map[symbolKey]uint32)
	}
	if f.Kind == Native && f.Name != "" {
		if l.recent == nil {
			return l.name(f)
		}
		r := &l.recent[slot(f.Name)]
		if r.name != f.Name {
			*r = recent{f.Name, l.name(f)}
		}
		return r.id
	}
	if f.Kind == Native {
		b := &l.blank[0]
		if isLibc(f.Module) {
			b = &l.blank[1]
		}
		if *b == 0 {
			*b = l.add(f) + 1
		}
		return *b - 1
	}
	key := symbolKey{f.Name, f.Class, f.Internal}
	id, ok := l.ids[key]
	if !ok {
		id = l.add(f)
		l.ids[key] = id
	}
	return id
}

// name is the symbol of a function's name.
func (l *lane) name(f *Frame) uint32 {
	id, ok := l.named[f.Name]
	if !ok {
		id = l.add(f)
		l.named[f.Name] = id
	}
	return id
}

func (l *lane) add(f *Frame) uint32 {
	l.symbols = append(l.symbols, symbol{frame: *f, names: [2]int32{-1, -1}})
	return uint32(len(l.symbols) - 1)
}

// of lists the symbols of one stack.
func (l *lane) of(stack int) []uint32 { return l.seq[l.start[stack]:l.start[stack+1]] }

// truncated reports whether a stack has frames that were not read.
func (c *corpus) truncated(stack int) bool { return c.o.Stacks != nil && c.o.Stacks[stack].Truncated }

// view lists a stack's frames, and which of them are of a kind.
func (c *corpus) view(kind FrameKind, stack int) ([]Frame, []int) {
	if c.o.Stacks != nil {
		frames := c.o.Stacks[stack].Frames
		return frames, view(frames, kind)
	}
	// Of a benchmark, whose frames are their symbols.
	l := &c.lanes[kind]
	ids := l.of(stack)
	frames, at := make([]Frame, len(ids)), make([]int, len(ids))
	for i, id := range ids {
		frames[i], at[i] = l.symbols[id].frame, i
	}
	return frames, at
}
