package dwinfo

import (
	"sync"
)

// unit is one compile or partial unit: header, root entry, and what lookups
// have found in it so far.
type unit struct {
	f       *file
	info    []byte // .debug_info up to the unit's end: positions are section offsets
	off     int    // of the header
	root    int    // of the root entry
	body    int    // of the root's first child
	end     int
	version uint16
	utype   uint8
	p       params
	abbrevs *abbrevTable
	empty   bool // the root has no children

	lang                    uint64
	low, high, ranges       value
	base                    uint64 // of range lists: DW_AT_low_pc
	name, compDir           string
	stmtList                value
	strBase, addrBase, rngs uint64 // DW_AT_*_base; 0 when absent

	funcsOnce sync.Once
	funcs     spans // pc to offset of a DW_TAG_subprogram: what needs no deep walk
	funcsErr  error

	deepOnce sync.Once
	deep     spans // the same with functions nested in functions
	deepErr  error
}

// maxUnitHeader is more than a unit's or a line table's length takes, in bytes.
const maxUnitHeader = 16

// parseUnit reads the header at off (7.5.1) and the root entry.
func (f *file) parseUnit(off int) (*unit, error) {
	info, err := f.sectionTo(secInfo, off+maxUnitHeader)
	if err != nil {
		return nil, err
	}
	c := at(info, off)
	n, offSize := c.initialLength()
	u := &unit{f: f, off: off}
	if c.bad || n > uint64(len(info)-c.p) {
		return nil, malformed(".debug_info", off, "unit runs past the end of the section")
	}
	u.end = c.p + int(n)
	if _, err := f.sectionTo(secInfo, u.end); err != nil {
		return nil, err
	}
	c.b = info[:u.end:u.end]
	u.info = c.b
	u.version = c.u16()
	if !c.bad && (u.version < 2 || u.version > 5) {
		return nil, malformed(".debug_info", off, "unit of a version other than 2 to 5")
	}
	var abbrevOff uint64
	var addrSize uint8
	u.utype = utCompile
	if u.version >= 5 {
		u.utype = c.u8()
		addrSize = c.u8()
		abbrevOff = c.uint(offSize)
		switch u.utype {
		case utSkeleton, utSplitCompile:
			c.skip(8) // dwo_id
		case utType, utSplitType:
			c.skip(8 + offSize) // signature, type offset
		}
	} else {
		abbrevOff = c.uint(offSize)
		addrSize = c.u8()
	}
	if c.bad {
		return nil, malformed(".debug_info", off, "unit header cut short")
	}
	switch addrSize {
	case 1, 2, 4, 8:
	default:
		return nil, malformed(".debug_info", off, "unit with an address size other than 1, 2, 4 or 8")
	}
	u.p = params{addrSize: int8(addrSize), offSize: int8(offSize), refSize: int8(offSize)}
	if u.version == 2 {
		u.p.refSize = int8(addrSize) // DWARF 2 had the size of an address here
	}
	abbrev, err := f.section(secAbbrev)
	if err != nil {
		return nil, err
	}
	if abbrevOff > uint64(len(abbrev)) {
		return nil, malformed(".debug_info", off, "abbreviations lie outside of .debug_abbrev")
	}
	if u.abbrevs, err = f.abbrevTable(int(abbrevOff), u.p); err != nil {
		return nil, err
	}
	u.root = c.p
	return u, u.readRoot(&c)
}

// readRoot reads the root entry. Strings are resolved last, because the base
// they count from may follow them.
func (u *unit) readRoot(c *cursor) error {
	a, err := u.abbrev(c)
	if err != nil {
		return err
	}
	if a == nil {
		u.empty = true
		u.body = c.p
		return nil
	}
	var name, dir value
	for i := range a.attrs {
		s := &a.attrs[i]
		switch s.at {
		case atName:
			name = c.value(s, u.p)
		case atCompDir:
			dir = c.value(s, u.p)
		case atLanguage:
			u.lang = c.value(s, u.p).u
		case atLowPC:
			u.low = c.value(s, u.p)
		case atHighPC:
			u.high = c.value(s, u.p)
		case atRanges:
			u.ranges = c.value(s, u.p)
		case atStmtList:
			u.stmtList = c.value(s, u.p)
		case atStrOffsetsBase:
			u.strBase = c.value(s, u.p).u
		case atAddrBase, atGNUAddrBase:
			u.addrBase = c.value(s, u.p).u
		case atRnglistsBase:
			u.rngs = c.value(s, u.p).u
		default:
			c.skipValue(s, u.p)
		}
	}
	if c.bad {
		return malformed(".debug_info", u.root, "unit's root entry runs past its end")
	}
	u.body = c.p
	u.empty = !a.children
	if a.tag == tagPartialUnit {
		u.utype = utPartial // before version 5 only the tag tells
	}
	if u.name, err = u.str(name); err != nil {
		return err
	}
	if u.compDir, err = u.str(dir); err != nil {
		return err
	}
	if u.low.present() {
		u.base, err = u.addr(u.low)
	}
	return err
}

// hasCode reports a unit that can own machine code.
func (u *unit) hasCode() bool { return u.utype == utCompile || u.utype == utSkeleton }

// abbrev reads an entry's abbreviation code; nil for the null entry that ends
// a list of siblings.
func (u *unit) abbrev(c *cursor) (*abbrev, error) {
	p := c.p
	code := c.uleb()
	if c.bad {
		return nil, malformed(".debug_info", p, "entry runs past its unit's end")
	}
	if code == 0 {
		return nil, nil
	}
	a := u.abbrevs.get(code)
	if a == nil {
		return nil, malformed(".debug_info", p, "entry with an unknown abbreviation")
	}
	return a, nil
}

// skipAttrs moves past an entry's attributes.
func (u *unit) skipAttrs(c *cursor, a *abbrev) {
	if a.fixed >= 0 {
		c.skip(int(a.fixed))
		return
	}
	for i := range a.attrs {
		c.skipValue(&a.attrs[i], u.p)
	}
}

// skipEntry moves past the attributes and the children of the entry whose
// abbreviation has just been read.
func (u *unit) skipEntry(c *cursor, a *abbrev) error {
	if !a.children {
		u.skipAttrs(c, a)
		return nil
	}
	if s := int(a.sibling); s >= 0 && c.p+s+4 <= len(c.b) {
		x := cursor{b: c.b, p: c.p + s}
		if u.jump(c, uint64(x.u32())) {
			return nil
		}
	}
	var sib value
	for i := range a.attrs {
		if s := &a.attrs[i]; s.at == atSibling {
			sib = c.value(s, u.p)
		} else {
			c.skipValue(s, u.p)
		}
	}
	return u.skipChildren(c, sib)
}

// skipChildren moves past the children of an entry whose attributes have been
// read: to the sibling when one is named, by walking otherwise.
func (u *unit) skipChildren(c *cursor, sib value) error {
	if sib.present() && sib.form != formRefAddr && u.jump(c, sib.u) {
		return nil
	}
	start := c.p
	for depth := 1; depth > 0; {
		a, err := u.abbrev(c)
		switch {
		case err != nil:
			return err
		case a == nil:
			depth--
			continue
		}
		// A nested entry's sibling saves its walk, too.
		if s := int(a.sibling); a.children && s >= 0 && c.p+s+4 <= len(c.b) {
			x := cursor{b: c.b, p: c.p + s}
			if u.jump(c, uint64(x.u32())) {
				continue
			}
		}
		u.skipAttrs(c, a)
		if a.children {
			if depth++; depth > maxTreeDepth {
				return limit(".debug_info", start, "nesting of entries")
			}
		}
	}
	return nil
}

// jump moves forward to an offset relative to the unit. A sibling that points
// backwards is not believed: walking the children finds the place as well.
func (u *unit) jump(c *cursor, rel uint64) bool {
	if rel > uint64(u.end-u.off) || u.off+int(rel) <= c.p {
		return false
	}
	c.p = u.off + int(rel)
	return true
}

// ref resolves a reference to an entry: its unit and offset.
func (u *unit) ref(v value) (*unit, int, error) {
	f := u.f
	switch v.form {
	case formRef1, formRef2, formRef4, formRef8, formRefUdata:
		if v.u > uint64(u.end-u.off) || u.off+int(v.u) < u.root || u.off+int(v.u) >= u.end {
			return nil, 0, malformed(".debug_info", u.off, "reference outside of its unit")
		}
		return u, u.off + int(v.u), nil
	case formGNURefAlt, formRefSup4, formRefSup8:
		if f.alt == nil {
			return nil, 0, ErrNoSupplement
		}
		f = f.alt
	case formRefAddr:
	default:
		return nil, 0, malformed(".debug_info", u.off, "reference of an unsupported form")
	}
	info, err := f.section(secInfo)
	if err != nil {
		return nil, 0, err
	}
	if v.u >= uint64(len(info)) {
		return nil, 0, malformed(".debug_info", u.off, "reference past the end of .debug_info")
	}
	t, err := f.unitContaining(int(v.u))
	return t, int(v.u), err
}
