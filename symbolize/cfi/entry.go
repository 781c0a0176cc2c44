package cfi

// entry is the frame around a CIE or FDE.
type entry struct {
	body  cursor // behind the CIE id or pointer
	isCIE bool
	cie   int // offset of the FDE's CIE
	next  int // offset of the next entry
	dw64  bool
}

// cie is a common information entry.
type cie struct {
	codeAlign uint64
	dataAlign int64
	ra        int
	ptrEnc    uint8
	augmented bool // augmentation data precedes the instructions
	signal    bool
	program   []byte
}

// fde is a frame description entry.
type fde struct {
	low, high uint64
	cie       *cie
	program   []byte
}

// entryAt decodes the header of the entry at off.
func (s *Section) entryAt(off int) (entry, error) {
	if off < 0 || off > len(s.data) {
		return entry{}, malformed("offset %#x is outside the section", off)
	}
	c := cursor{b: s.data, off: off}
	e := entry{}
	n := uint64(c.u32())
	if n == 0xffffffff {
		e.dw64 = true
		n = c.u64()
	}
	if n == 0 { // .eh_frame's terminator
		return entry{}, malformed("terminator at %#x", off)
	}
	if c.bad || n > uint64(c.left()) {
		return entry{}, malformed("length %#x at %#x reaches beyond the section", n, off)
	}
	e.next = c.off + int(n)
	idAt := c.off
	c.b = c.b[:e.next]
	var id uint64
	if e.dw64 {
		id = c.u64()
	} else {
		id = uint64(c.u32())
	}
	switch {
	case s.eh:
		e.isCIE = id == 0
		e.cie = idAt - int(id)
	case e.dw64:
		e.isCIE = id == ^uint64(0)
		e.cie = int(id)
	default:
		e.isCIE = id == 0xffffffff
		e.cie = int(id)
	}
	if c.bad || !e.isCIE && (e.cie < 0 || e.cie >= len(s.data)) {
		return entry{}, malformed("entry at %#x", off)
	}
	e.body = c
	return e, nil
}

func (s *Section) parseCIE(off int) (*cie, error) {
	e, err := s.entryAt(off)
	if err != nil {
		return nil, err
	}
	if !e.isCIE {
		return nil, malformed("no CIE at %#x", off)
	}
	c := e.body
	k := &cie{}
	version := c.u8()
	aug := c.cstring()
	if version == 4 && !s.eh {
		c.take(2) // address and segment size
	}
	k.codeAlign = c.uleb()
	k.dataAlign = c.sleb()
	if version == 1 {
		k.ra = int(c.u8())
	} else {
		k.ra = int(min(c.uleb(), 1<<16))
	}
	if c.bad || version == 0 || version > 4 || version == 2 {
		return nil, malformed("CIE at %#x, version %d", off, version)
	}
	if len(aug) > 0 {
		if aug[0] != 'z' {
			return nil, malformed("CIE at %#x has augmentation %q", off, aug)
		}
		k.augmented = true
		data := cursor{b: c.take(int(min(c.uleb(), 1<<20)))}
		for _, a := range []byte(aug[1:]) {
			switch a {
			case 'R':
				k.ptrEnc = data.u8()
			case 'P':
				enc := data.u8()
				encoded(&data, enc&^(0x70|peIndir), 0, 0)
			case 'L':
				data.u8()
			case 'S':
				k.signal = true
			case 'B', 'G': // arm64: return addresses are signed; memory tags
			default:
				// What follows can't be known, but 'z' says where it ends.
				data.off = len(data.b)
			}
		}
		if data.bad {
			return nil, malformed("augmentation of the CIE at %#x", off)
		}
	}
	if c.bad {
		return nil, malformed("CIE at %#x is cut off", off)
	}
	k.program = c.b[c.off:]
	return k, nil
}

// parse decodes the FDE at off and its CIE.
func (s *Section) parse(off int) (*fde, error) {
	e, err := s.entryAt(off)
	if err != nil {
		return nil, err
	}
	if e.isCIE {
		return nil, malformed("CIE at %#x where an FDE is expected", off)
	}
	k, err := s.parseCIE(e.cie)
	if err != nil {
		return nil, err
	}
	c := e.body
	f := &fde{cie: k}
	f.low = encoded(&c, k.ptrEnc, s.addr, 0)
	n := encoded(&c, k.ptrEnc&0x0f, 0, 0)
	f.high = f.low + n
	if f.high < f.low {
		return nil, malformed("FDE at %#x wraps around", off)
	}
	if k.augmented {
		c.take(int(min(c.uleb(), 1<<20)))
	}
	if c.bad {
		return nil, malformed("FDE at %#x is cut off", off)
	}
	f.program = c.b[c.off:]
	return f, nil
}
