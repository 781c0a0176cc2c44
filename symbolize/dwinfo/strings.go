package dwinfo

import "errors"

// ErrNoSupplement says that an answer lies in the supplementary file that
// .gnu_debugaltlink names, and Open was not given it.
var ErrNoSupplement = errors.New("the debug information refers to a supplementary file (.gnu_debugaltlink) that was not given")

// str resolves a string attribute; "" for an absent one.
func (u *unit) str(v value) (string, error) {
	b, err := u.strBytes(v)
	return string(b), err
}

// strBytes is str without the copy.
func (u *unit) strBytes(v value) ([]byte, error) {
	switch v.form {
	case 0:
		return nil, nil
	case formString:
		return v.b, nil
	case formStrp:
		return u.f.strAt(secStr, v.u)
	case formLineStrp:
		return u.f.strAt(secLineStr, v.u)
	case formGNUStrpAlt, formStrpSup:
		if u.f.alt == nil {
			return nil, ErrNoSupplement
		}
		return u.f.alt.strAt(secStr, v.u)
	case formStrx, formStrx1, formStrx2, formStrx3, formStrx4, formGNUStrIndex:
		off, err := u.indexed(secStrOffsets, u.strBase, v.u, int(u.p.offSize))
		if err != nil {
			return nil, err
		}
		return u.f.strAt(secStr, off)
	}
	return nil, malformed(".debug_info", u.off, "string attribute of an unsupported form")
}

func (f *file) strAt(id sectionID, off uint64) ([]byte, error) {
	sec, err := f.section(id)
	if err != nil {
		return nil, err
	}
	if off >= uint64(len(sec)) {
		return nil, malformed(sectionNames[id], len(sec), "string offset past the end")
	}
	c := at(sec, int(off))
	s := c.cstr()
	if c.bad {
		return nil, malformed(sectionNames[id], int(off), "string is not terminated")
	}
	return s, nil
}

// indexed reads element i, of size bytes, of a table that begins at base.
func (u *unit) indexed(id sectionID, base, i uint64, size int) (uint64, error) {
	sec, err := u.f.section(id)
	if err != nil {
		return 0, err
	}
	n := uint64(len(sec))
	if base > n || i >= (n-base)/uint64(size) {
		return 0, malformed(sectionNames[id], int(min(base, n)), "index past the end")
	}
	c := at(sec, int(base+i*uint64(size)))
	return c.uint(size), nil
}

// addr resolves a value of class address.
func (u *unit) addr(v value) (uint64, error) {
	if v.form == formAddr {
		return v.u, nil
	}
	if !v.isAddr() {
		return 0, malformed(".debug_info", u.off, "address attribute of an unsupported form")
	}
	return u.indexed(secAddr, u.addrBase, v.u, int(u.p.addrSize))
}
