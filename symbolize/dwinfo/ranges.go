package dwinfo

// pcAttrs are the attributes that say where an entry's code is.
type pcAttrs struct {
	low, high, ranges value
}

func (p *pcAttrs) present() bool { return p.low.present() || p.ranges.present() }

// eachRange calls f with the non-empty address ranges of an entry (2.17) until
// it returns false.
func (u *unit) eachRange(p *pcAttrs, f func(lo, hi uint64) bool) error {
	if p.ranges.present() {
		if u.version >= 5 {
			return u.eachRnglist(p.ranges, f)
		}
		return u.eachRange4(p.ranges.u, f)
	}
	if !p.low.present() {
		return nil
	}
	lo, err := u.addr(p.low)
	if err != nil {
		return err
	}
	hi := lo + 1 // 2.17.1: a single address
	if p.high.isAddr() {
		hi, err = u.addr(p.high)
	} else if p.high.present() {
		hi = lo + p.high.u
	}
	if err == nil && lo < hi {
		f(lo, hi)
	}
	return err
}

// covers reports whether the entry's code includes pc.
func (u *unit) covers(p *pcAttrs, pc uint64) (in bool, err error) {
	err = u.eachRange(p, func(lo, hi uint64) bool {
		in = pc >= lo && pc < hi
		return !in
	})
	return in, err
}

// eachRange4 walks a list of .debug_ranges (DWARF 4, 2.17.3).
func (u *unit) eachRange4(off uint64, f func(lo, hi uint64) bool) error {
	sec, err := u.f.section(secRanges)
	if err != nil {
		return err
	}
	if off > uint64(len(sec)) {
		return malformed(".debug_ranges", len(sec), "range list past the end")
	}
	size := int(u.p.addrSize)
	selects := ^uint64(0) >> (64 - 8*uint(size))
	base := u.base
	c := at(sec, int(off))
	for n := 0; ; n++ {
		lo, hi := c.uint(size), c.uint(size)
		switch {
		case n > maxRangeEntries:
			return limit(".debug_ranges", int(off), "entries of one range list")
		case c.bad:
			return malformed(".debug_ranges", int(off), "range list is not terminated")
		case lo == 0 && hi == 0:
			return nil
		case lo == selects:
			base = hi
		case base+lo < base+hi && !f(base+lo, base+hi):
			return nil
		}
	}
}

// eachRnglist walks a list of .debug_rnglists (2.17.3).
func (u *unit) eachRnglist(v value, f func(lo, hi uint64) bool) error {
	sec, err := u.f.section(secRnglists)
	if err != nil {
		return err
	}
	off := v.u
	if v.form == formRnglistx {
		rel, err := u.indexed(secRnglists, u.rngs, v.u, int(u.p.offSize))
		if err != nil {
			return err
		}
		off = u.rngs + rel
	}
	if off > uint64(len(sec)) {
		return malformed(".debug_rnglists", len(sec), "range list past the end")
	}
	base := u.base
	addrx := func(i uint64) (a uint64) {
		if err == nil {
			a, err = u.indexed(secAddr, u.addrBase, i, int(u.p.addrSize))
		}
		return a
	}
	size := int(u.p.addrSize)
	c := at(sec, int(off))
	for n := 0; ; n++ {
		if n > maxRangeEntries {
			return limit(".debug_rnglists", int(off), "entries of one range list")
		}
		var lo, hi uint64
		switch c.u8() {
		case rleEndOfList:
			if c.bad {
				return malformed(".debug_rnglists", int(off), "range list is not terminated")
			}
			return err
		case rleBaseAddressx:
			base = addrx(c.uleb())
		case rleStartxEndx:
			lo, hi = addrx(c.uleb()), addrx(c.uleb())
		case rleStartxLength:
			lo = addrx(c.uleb())
			hi = lo + c.uleb()
		case rleOffsetPair:
			lo = base + c.uleb()
			hi = base + c.uleb()
		case rleBaseAddress:
			base = c.uint(size)
		case rleStartEnd:
			lo, hi = c.uint(size), c.uint(size)
		case rleStartLength:
			lo = c.uint(size)
			hi = lo + c.uleb()
		default:
			return malformed(".debug_rnglists", c.p-1, "unknown kind of range list entry")
		}
		if c.bad {
			return malformed(".debug_rnglists", int(off), "range list is not terminated")
		}
		if err != nil {
			return err
		}
		if lo < hi && !f(lo, hi) {
			return nil
		}
	}
}
