package dwinfo

// typeEntry is one type entry with the attributes that layouts need.
type typeEntry struct {
	u           *unit
	off         int
	tag         uint16
	children    bool
	body        int // position after the attributes
	name        value
	typ         value
	byteSize    uint64
	hasSize     bool
	declaration bool

	// of a member, or of a dimension
	loc, sibling                value
	bitSize, bitOffset, dataBit value
	count, upper                value
}

func (t *typeEntry) isStruct() bool {
	return t.tag == tagStructureType || t.tag == tagClassType || t.tag == tagUnionType
}

// typeAt reads the entry at off.
func (u *unit) typeAt(off int) (*typeEntry, error) {
	c := at(u.info, off)
	a, err := u.abbrev(&c)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return nil, malformed(".debug_info", off, "reference to a null entry")
	}
	return u.readType(&c, a, off)
}

func (u *unit) readType(c *cursor, a *abbrev, off int) (*typeEntry, error) {
	t := &typeEntry{u: u, off: off, tag: a.tag, children: a.children}
	for i := range a.attrs {
		s := &a.attrs[i]
		switch s.at {
		case atName:
			t.name = c.value(s, u.p)
		case atType:
			t.typ = c.value(s, u.p)
		case atByteSize:
			v := c.value(s, u.p)
			t.byteSize, t.hasSize = v.u, !v.isBlock()
		case atDeclaration:
			t.declaration = c.value(s, u.p).u != 0
		case atDataMemberLoc:
			t.loc = c.value(s, u.p)
		case atBitSize:
			t.bitSize = c.value(s, u.p)
		case atBitOffset:
			t.bitOffset = c.value(s, u.p)
		case atDataBitOffset:
			t.dataBit = c.value(s, u.p)
		case atCount:
			t.count = c.value(s, u.p)
		case atUpperBound:
			t.upper = c.value(s, u.p)
		case atSibling:
			t.sibling = c.value(s, u.p)
		default:
			c.skipValue(s, u.p)
		}
	}
	if c.bad {
		return nil, malformed(".debug_info", off, "entry runs past its unit's end")
	}
	t.body = c.p
	return t, nil
}

// target returns the type that t refers to, nil for void.
func (t *typeEntry) target() (*typeEntry, error) {
	if !t.typ.present() {
		return nil, nil
	}
	u, off, err := t.u.ref(t.typ)
	if err != nil {
		return nil, err
	}
	return u.typeAt(off)
}

// strip follows typedefs and qualifiers; nil for void.
func (t *typeEntry) strip() (*typeEntry, error) {
	for n := 0; t != nil; n++ {
		switch t.tag {
		case tagTypedef, tagConstType, tagVolatileType, tagRestrictType, tagAtomicType:
		default:
			return t, nil
		}
		if n >= maxTypeChain {
			return nil, limit(".debug_info", t.off, "typedefs and qualifiers of one type")
		}
		var err error
		if t, err = t.target(); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// size returns the size of a stripped type in bytes, 0 for what has none: a
// function, void, a flexible array.
func (t *typeEntry) size() (uint64, error) {
	total := uint64(1)
	for n := 0; ; n++ {
		switch {
		case t == nil:
			return 0, nil
		case t.hasSize:
			return mulSize(total, t.byteSize, t.off)
		case t.tag == tagPointerType || t.tag == tagReferenceType || t.tag == tagRvalueRefType:
			return mulSize(total, uint64(t.u.p.addrSize), t.off)
		case t.tag != tagArrayType:
			return 0, nil
		case n >= maxTypeChain:
			return 0, limit(".debug_info", t.off, "arrays of arrays")
		}
		dims, err := t.elements()
		if err != nil {
			return 0, err
		}
		if total, err = mulSize(total, dims, t.off); err != nil {
			return 0, err
		}
		if t, err = t.target(); err != nil {
			return 0, err
		}
		if t, err = t.strip(); err != nil {
			return 0, err
		}
	}
}

// mulSize multiplies sizes; an object larger than 1<<47 bytes does not exist.
func mulSize(a, b uint64, off int) (uint64, error) {
	const largest = 1 << 47
	if a != 0 && b > largest/a {
		return 0, malformed(".debug_info", off, "type larger than the address space")
	}
	return a * b, nil
}

// elements returns the number of elements of an array, over all dimensions; 0
// when a dimension is open (char val[]) or not constant.
func (t *typeEntry) elements() (uint64, error) {
	total := uint64(1)
	seen := false
	err := t.eachChild(func(d *typeEntry) error {
		if d.tag != tagSubrangeType {
			return nil
		}
		seen = true
		var n uint64
		switch {
		case d.count.present() && !d.count.isBlock():
			n = d.count.u
		case d.upper.present() && !d.upper.isBlock():
			n = d.upper.u + 1 // the lower bound of C is 0; -1 makes it empty
		}
		var err error
		total, err = mulSize(total, n, d.off)
		return err
	})
	if !seen {
		total = 0
	}
	return total, err
}

// eachChild calls f with the children of t, without theirs.
func (t *typeEntry) eachChild(f func(*typeEntry) error) error {
	if !t.children {
		return nil
	}
	c := at(t.u.info, t.body)
	for {
		off := c.p
		a, err := t.u.abbrev(&c)
		if err != nil || a == nil {
			return err
		}
		switch a.tag {
		case tagMember, tagInheritance, tagSubrangeType:
			child, err := t.u.readType(&c, a, off)
			if err != nil {
				return err
			}
			if err := f(child); err != nil {
				return err
			}
			if a.children {
				if err := t.u.skipChildren(&c, child.sibling); err != nil {
					return err
				}
			}
		default:
			if err := t.u.skipEntry(&c, a); err != nil {
				return err
			}
		}
		if c.bad {
			return malformed(".debug_info", off, "entry runs past its unit's end")
		}
	}
}

// flatten adds the members of t, which begins at base, under prefix. left is
// how many members may still be visited: anonymous ones leave no trace in s.
func (t *typeEntry) flatten(s *Struct, prefix string, base uint64, depth int, left *int) error {
	if depth > maxStructDepth {
		return limit(".debug_info", t.off, "structs inside structs")
	}
	return t.eachChild(func(m *typeEntry) error {
		if m.tag == tagSubrangeType {
			return nil
		}
		if *left--; *left < 0 {
			return limit(".debug_info", m.off, "members of one struct")
		}
		rel, ok := m.memberOffset()
		if !ok {
			return nil // a static member, or one whose place varies
		}
		ty, err := m.target()
		if err != nil {
			return err
		}
		if ty, err = ty.strip(); err != nil {
			return err
		}
		size, err := ty.size()
		if err != nil {
			return err
		}
		mem := Member{Offset: base + rel, Size: size}
		m.bitField(&mem, base)
		name, err := m.u.str(m.name)
		if err != nil {
			return err
		}
		inner := prefix
		if name != "" {
			s.Members[prefix+name] = mem
			inner = prefix + name + "."
		}
		if ty == nil || !ty.isStruct() {
			return nil
		}
		return ty.flatten(s, inner, mem.Offset, depth+1, left)
	})
}

// memberOffset returns a member's offset in its struct, false when it has no
// constant one. Union members and bit-fields of DWARF 5 carry none: 0.
func (m *typeEntry) memberOffset() (uint64, bool) {
	switch {
	case !m.loc.present():
		return 0, !m.declaration
	case !m.loc.isBlock():
		return m.loc.u, true
	}
	// DWARF 2 writes DW_OP_plus_uconst N.
	c := cursor{b: m.loc.b}
	if op := c.u8(); op != 0x23 {
		return 0, false
	}
	n := c.uleb()
	return n, !c.bad && c.done()
}

// bitField completes a bit-field in a struct that begins at base.
func (m *typeEntry) bitField(mem *Member, base uint64) {
	if !m.bitSize.present() || mem.Size == 0 || mem.Size > 16 || m.bitSize.u > 8*mem.Size {
		return
	}
	unitBits := 8 * mem.Size
	mem.BitSize = int(m.bitSize.u)
	switch {
	case m.dataBit.present(): // 5.7.6: bits from the struct's start
		mem.Offset = base + m.dataBit.u/unitBits*mem.Size
		mem.BitOffset = int(m.dataBit.u % unitBits)
	case m.bitOffset.present(): // DWARF 2 and 3: from the most significant bit
		mem.BitOffset = int(unitBits - m.bitOffset.u%unitBits - min(m.bitSize.u, unitBits-m.bitOffset.u%unitBits))
	}
}
