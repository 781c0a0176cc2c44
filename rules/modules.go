package rules

// Many rules want a frame in some module, redis.so for instance, and little
// else that few stacks have. When no stack has one, the pattern is not tried at
// all. Otherwise the modules that a stack has frames in are found out once, when
// the first such pattern asks, which answers all of them.

const (
	// maxModules is how many modules are told apart. A stack that has frames in
	// more is tried on every pattern.
	maxModules = 62
	// otherModule and modulesKnown are the two bits left in a stack's set.
	otherModule  = uint64(1) << maxModules
	modulesKnown = otherModule << 1
)

// modules are the sets of modules of all stacks.
type modules struct {
	names []string // by bit
	bits  map[string]uint64
	of    []uint64 // by stack; 0 as long as nobody asked
}

// wantedModule is a module, as a glob, of which a pattern must have a frame.
type wantedModule struct {
	glob   string
	fit    uint64 // the modules that it fits
	looked int    // how many of modules.names were compared
}

// wantedModules are those that a stack must have for the pattern to match.
func (g *program) wantedModules() []wantedModule {
	var out []wantedModule
	for i := range g.p.elements {
		if e := &g.p.elements[i]; !e.php && e.min > 0 && e.module != "" {
			out = append(out, wantedModule{glob: e.module})
		}
	}
	return out
}

// note keeps the module of a frame.
func (l *lane) note(module string) {
	if l.modules != nil && module == l.module {
		return // most frames are in the module of the one before
	}
	if l.modules == nil {
		l.modules = make(map[string]bool)
	}
	l.module, l.modules[module] = module, true
}

// reaches reports whether some stacks have frames in each module that a pattern
// wants.
func (l *lane) reaches(all []wantedModule) bool {
	for _, w := range all {
		found := false
		for name := range l.modules {
			found = found || glob(w.glob, name)
		}
		if !found {
			return false
		}
	}
	return true
}

// reaches reports whether a stack has a frame in each module that a pattern wants.
func (s *search) reaches(i, stack int, seq []uint32) bool {
	if len(s.wants[i]) == 0 {
		return true
	}
	m := &s.mods
	if m.of == nil {
		m.of, m.bits = make([]uint64, len(s.lane.start)-1), make(map[string]uint64)
	}
	if m.of[stack] == 0 {
		m.of[stack] = s.moduleSet(stack, seq)
	}
	have := m.of[stack]
	for j := range s.wants[i] {
		w := &s.wants[i][j]
		for ; w.looked < len(m.names); w.looked++ {
			if glob(w.glob, m.names[w.looked]) {
				w.fit |= 1 << w.looked
			}
		}
		if have&(w.fit|otherModule) == 0 {
			return false
		}
	}
	return true
}

// moduleSet collects the modules of a stack's frames.
func (s *search) moduleSet(stack int, seq []uint32) uint64 {
	set, last, bit := modulesKnown, "", uint64(0)
	add := func(name string) {
		if bit == 0 || name != last { // most frames are in the module of the one before
			last, bit = name, s.mods.bit(name)
		}
		set |= bit
	}
	if s.c.o.Stacks == nil { // of a benchmark, see corpus.view
		for _, id := range seq {
			add(s.lane.symbols[id].frame.Module)
		}
		return set
	}
	frames := s.c.o.Stacks[stack].Frames
	for i := range frames {
		if frames[i].Kind == s.kind {
			add(frames[i].Module)
		}
	}
	return set
}

// bit numbers a module.
func (m *modules) bit(name string) uint64 {
	if b, ok := m.bits[name]; ok {
		return b
	}
	if len(m.names) == maxModules {
		return otherModule
	}
	b := uint64(1) << len(m.names)
	m.names, m.bits[name] = append(m.names, name), b
	return b
}
