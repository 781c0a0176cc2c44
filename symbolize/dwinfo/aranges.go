package dwinfo

// loadAranges reads .debug_aranges (6.1.2). The section only speeds up the
// search: a set that can't be read leaves its unit to loadRest.
func (d *Data) loadAranges() {
	d.listed = make(map[int]bool)
	sec, err := d.main.section(secAranges)
	if err != nil {
		return
	}
	c := at(sec, 0)
	for !c.done() {
		start := c.p
		n, offSize := c.initialLength()
		if c.bad || n > uint64(len(sec)-c.p) {
			break
		}
		end := c.p + int(n)
		set := cursor{b: sec[:end], p: c.p}
		c.p = end
		version, off, addrSize, segSize := set.u16(), set.uint(offSize), int(set.u8()), set.u8()
		if set.bad || version != 2 || segSize != 0 || off > 1<<47 || (addrSize != 4 && addrSize != 8) {
			continue
		}
		// Tuples are aligned to their own size, counted from the set's start.
		if r := (set.p - start) % (2 * addrSize); r != 0 {
			set.skip(2*addrSize - r)
		}
		for len(set.b)-set.p >= 2*addrSize {
			lo, size := set.uint(addrSize), set.uint(addrSize)
			d.covered.add(lo, lo+size, int(off))
			if size != 0 {
				d.listed[int(off)] = true
			}
		}
	}
	d.covered.sort()
}

// loadRest finds the ranges of the units that .debug_aranges does not list:
// from their root entries, or where these say nothing, from their functions.
func (d *Data) loadRest() {
	offs, err := d.main.unitOffsets()
	note := func(e error) {
		if err == nil {
			err = e
		}
	}
	for _, off := range offs {
		if d.listed[off] {
			continue
		}
		u, e := d.main.unit(off)
		if e != nil {
			note(e)
			continue
		}
		if !u.hasCode() {
			continue
		}
		if u.ranges.present() || u.high.present() {
			p := pcAttrs{u.low, u.high, u.ranges}
			note(u.eachRange(&p, func(lo, hi uint64) bool {
				d.rest.add(lo, hi, off)
				return true
			}))
			continue
		}
		note(u.indexFuncs())
		for _, s := range u.funcs.s {
			d.rest.add(s.lo, s.hi, off)
		}
	}
	d.rest.sort()
	d.restErr = err
}
