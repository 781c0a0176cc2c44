package dwinfo

import "fmt"

// Member is one member of a struct, in bytes from the struct's start.
type Member struct {
	Offset uint64
	Size   uint64 // of the member's type; of its storage unit for a bit-field
	// BitOffset and BitSize are those of a bit-field, counted from the least
	// significant bit of the storage unit at Offset; BitSize is 0 otherwise.
	BitOffset, BitSize int
}

// Struct is the layout of a struct, class or union.
type Struct struct {
	Name string // the tag's name, "" for a typedef of an anonymous struct
	Size uint64
	// Members are flattened: "gc.u.type_info" is a member of the union "u"
	// of the struct "gc", and "gc.u" and "gc" are there as well. Members of
	// anonymous structs and unions stand in their parent. An array is one
	// member, its elements are not listed.
	Members map[string]Member
}

// Structs finds struct layouts by tag or typedef name. What is not found, or
// only declared, is missing in the result. It looks at one unit after the
// other until it has them all, so that a name which does not exist costs a
// walk over all units (php: 8 to 20 ms); StructsIn is the fast way.
func (d *Data) Structs(names ...string) (map[string]*Struct, error) {
	w := newWanted(names)
	offs, err := d.main.unitOffsets()
	for _, off := range offs {
		if w.complete() {
			break
		}
		u, e := d.main.unit(off)
		if e == nil && u.hasCode() { // partial units are reached by import
			e = u.findStructs(w)
		}
		if err == nil {
			err = e
		}
	}
	return w.found, err
}

// StructsIn is Structs limited to the units that cover the addresses pcs: for
// a struct that a known function uses.
func (d *Data) StructsIn(pcs []uint64, names ...string) (map[string]*Struct, error) {
	w := newWanted(names)
	d.coveredOnce.Do(d.loadAranges)
	var err error
	for _, pc := range pcs {
		any := false
		look := func(s *spans) {
			for off := range s.covering(pc) {
				if w.complete() {
					return
				}
				any = true
				u, e := d.main.unit(off)
				if e == nil {
					e = u.findStructs(w)
				}
				if err == nil {
					err = e
				}
			}
		}
		if look(&d.covered); !any && !w.complete() {
			d.restOnce.Do(d.loadRest)
			look(&d.rest)
		}
	}
	return w.found, err
}

// wanted collects the answers of one call.
type wanted struct {
	missing map[string]bool
	longest int
	found   map[string]*Struct
	imports int
	seen    map[*unit]bool // partial units are shared by many units
}

func newWanted(names []string) *wanted {
	w := &wanted{missing: make(map[string]bool), found: make(map[string]*Struct), seen: make(map[*unit]bool)}
	for _, n := range names {
		w.missing[n] = true
		w.longest = max(w.longest, len(n))
	}
	return w
}

func (w *wanted) complete() bool { return len(w.missing) == 0 }

// findStructs walks the entries below the root of u, and of the partial units
// it imports, for names that are still missing.
func (u *unit) findStructs(w *wanted) error { return u.findStructsAt(w, 0) }

func (u *unit) findStructsAt(w *wanted, depth int) error {
	if w.seen[u] || u.empty {
		return nil
	}
	w.seen[u] = true
	c := at(u.info, u.body)
	var firstErr error
	for nest := 1; nest > 0 && !c.done() && !w.complete(); {
		off := c.p
		a, err := u.abbrev(&c)
		if err != nil {
			return err
		}
		if a == nil {
			nest--
			continue
		}
		switch a.tag {
		case tagStructureType, tagClassType, tagUnionType, tagTypedef:
			x := c // a look at the name; skipping is a separate matter
			if name := u.peekName(&x, a, w.longest); len(name) > 0 && w.missing[string(name)] {
				s, err := u.structAt(off)
				if err != nil && firstErr == nil {
					firstErr = fmt.Errorf("layout of %s: %w", name, err)
				}
				if err == nil && s != nil {
					w.found[string(name)] = s
					delete(w.missing, string(name))
				}
			}
		case tagImportedUnit:
			x := c
			if err := u.followImport(&x, a, w, depth); err != nil && firstErr == nil {
				firstErr = err
			}
		}
		if a.tag == tagNamespace && a.children {
			u.skipAttrs(&c, a)
			if nest++; nest > maxTreeDepth {
				return limit(".debug_info", off, "nesting of entries")
			}
		} else if err := u.skipEntry(&c, a); err != nil {
			return err
		}
		if c.bad {
			return malformed(".debug_info", off, "entry runs past its unit's end")
		}
	}
	return firstErr
}

func (u *unit) followImport(c *cursor, a *abbrev, w *wanted, depth int) error {
	w.imports++
	if depth >= maxImportDepth || w.imports > maxImports {
		return limit(".debug_info", u.off, "imported units")
	}
	for i := range a.attrs {
		s := &a.attrs[i]
		if s.at != atImport {
			c.skipValue(s, u.p)
			continue
		}
		t, _, err := u.ref(c.value(s, u.p))
		if err != nil {
			return err
		}
		return t.findStructsAt(w, depth+1)
	}
	return nil
}

// peekName returns the name of an entry, nil when it has none or it is longer
// than longest: what can't match is not read to its end.
func (u *unit) peekName(c *cursor, a *abbrev, longest int) []byte {
	for i := range a.attrs {
		s := &a.attrs[i]
		if s.at != atName {
			c.skipValue(s, u.p)
			continue
		}
		v := c.value(s, u.p)
		if v.form == formStrp {
			sec, err := u.f.section(secStr)
			if err != nil || v.u >= uint64(len(sec)) {
				return nil
			}
			x := at(sec[:min(uint64(len(sec)), v.u+uint64(longest)+1)], int(v.u))
			return x.cstr()
		}
		b, err := u.strBytes(v)
		if err != nil {
			return nil
		}
		return b
	}
	return nil
}

// structAt lays out the struct, or the typedef of one, at off; nil for a
// declaration and for a typedef of something else.
func (u *unit) structAt(off int) (*Struct, error) {
	t, err := u.typeAt(off)
	if err != nil {
		return nil, err
	}
	if t, err = t.strip(); err != nil {
		return nil, err
	}
	if t == nil || !t.isStruct() || t.declaration {
		return nil, nil
	}
	name, err := t.u.str(t.name)
	if err != nil {
		return nil, err
	}
	s := &Struct{Name: name, Size: t.byteSize, Members: make(map[string]Member)}
	left := maxMembers
	return s, t.flatten(s, "", 0, 0, &left)
}
