package dwinfo

// entry holds the attributes of a function or an inlined call that lookups use.
type entry struct {
	pcAttrs
	entryPC            value
	name, linkage      value
	origin             value // DW_AT_abstract_origin, else DW_AT_specification
	sibling            value
	callFile, callLine int
	callSite           bool // DW_AT_call_file and DW_AT_call_line are both there
	external           bool
}

// readEntry reads the attributes of an entry whose abbreviation is a.
func (u *unit) readEntry(c *cursor, a *abbrev, e *entry) {
	*e = entry{}
	file, line := false, false
	for i := range a.attrs {
		s := &a.attrs[i]
		switch s.at {
		case atLowPC:
			e.low = c.value(s, u.p)
		case atHighPC:
			e.high = c.value(s, u.p)
		case atRanges:
			e.ranges = c.value(s, u.p)
		case atEntryPC:
			e.entryPC = c.value(s, u.p)
		case atSibling:
			e.sibling = c.value(s, u.p)
		case atName:
			e.name = c.value(s, u.p)
		case atLinkageName, atMIPSLinkage:
			e.linkage = c.value(s, u.p)
		case atAbstractOrigin:
			e.origin = c.value(s, u.p)
		case atSpecification:
			if v := c.value(s, u.p); !e.origin.present() {
				e.origin = v
			}
		case atCallFile:
			e.callFile, file = smallInt(c.value(s, u.p).u), true
		case atCallLine:
			e.callLine, line = smallInt(c.value(s, u.p).u), true
		case atExternal:
			e.external = c.value(s, u.p).u != 0
		default:
			c.skipValue(s, u.p)
		}
	}
	e.callSite = file && line
}

// smallInt keeps a file index or line number that fits 31 bits, else 0: unknown.
func smallInt(v uint64) int {
	if v > 1<<31-1 {
		return 0
	}
	return int(v)
}

// indexFuncs lists the unit's functions by address. One pass over the entries
// below the root; what can't hold a function is skipped with its children.
func (u *unit) indexFuncs() error {
	u.funcsOnce.Do(func() { u.funcsErr = u.scanFuncs(&u.funcs, false) })
	return u.funcsErr
}

// indexDeep lists also functions nested in functions (GNU C, Ada, Fortran),
// which costs a walk over every entry of the unit.
func (u *unit) indexDeep() error {
	u.deepOnce.Do(func() { u.deepErr = u.scanFuncs(&u.deep, true) })
	return u.deepErr
}

// mayHoldFuncs reports whether the children of an entry can be functions of
// their own. Rust defines methods inside of struct and enum entries.
func (u *unit) mayHoldFuncs(tag uint16) bool {
	switch tag {
	case tagNamespace, tagModule:
		return true
	case tagStructureType, tagClassType, tagUnionType, tagEnumerationType:
		return !isC(u.lang)
	}
	return false
}

func (u *unit) scanFuncs(out *spans, deep bool) error {
	defer out.sort()
	if u.empty {
		return nil
	}
	c := at(u.info, u.body)
	var e entry
	var rangeErr error // costs one function; the first one is reported
	for depth := 1; depth > 0 && !c.done(); {
		off := c.p
		a, err := u.abbrev(&c)
		if err != nil {
			return err
		}
		if a == nil {
			depth--
			continue
		}
		if a.tag != tagSubprogram {
			if !a.children || (!deep && !u.mayHoldFuncs(a.tag)) {
				err = u.skipEntry(&c, a)
			} else {
				u.skipAttrs(&c, a)
				depth++
			}
		} else {
			u.readEntry(&c, a, &e)
			if e := u.eachRange(&e.pcAttrs, func(lo, hi uint64) bool {
				out.add(lo, hi, off)
				return true
			}); rangeErr == nil {
				rangeErr = e
			}
			if len(out.s) > maxFuncRanges {
				return limit(".debug_info", off, "address ranges of one unit's functions")
			}
			if a.children && deep {
				depth++
			} else if a.children {
				err = u.skipChildren(&c, e.sibling)
			}
		}
		if err != nil {
			return err
		}
		if c.bad {
			return malformed(".debug_info", off, "entry runs past its unit's end")
		}
		if depth > maxTreeDepth {
			return limit(".debug_info", off, "nesting of entries")
		}
	}
	return rangeErr
}

// chainAt returns the function that covers pc and the calls inlined there,
// outermost first, and the function's entry address.
func (u *unit) chainAt(pc uint64) (chain []entry, low uint64, err error) {
	err = u.indexFuncs()
	for off := range u.funcs.covering(pc) {
		chain, low, e := u.chainFrom(off, pc)
		if err == nil {
			err = e
		}
		return chain, low, err
	}
	if e := u.indexDeep(); err == nil {
		err = e
	}
	for off := range u.deep.covering(pc) {
		chain, low, e := u.chainFrom(off, pc)
		if err == nil {
			err = e
		}
		return chain, low, err
	}
	return nil, 0, err
}

// chainFrom walks the tree below the DW_TAG_subprogram at off along the blocks
// that cover pc.
func (u *unit) chainFrom(off int, pc uint64) (chain []entry, low uint64, err error) {
	c := at(u.info, off)
	a, err := u.abbrev(&c)
	if err != nil || a == nil {
		return nil, 0, err
	}
	var e entry
	u.readEntry(&c, a, &e)
	if low, err = u.entryOf(&e); err != nil {
		return nil, 0, err
	}
	chain = append(chain, e)
	if !a.children {
		return chain, low, nil
	}
	// depth counts the blocks without addresses of their own that are open
	// (3.5: their children belong to the enclosing block). Once an entry
	// covers pc, only its children matter, and the count starts anew.
	depth := 1
	for depth > 0 {
		p := c.p
		if a, err = u.abbrev(&c); err != nil {
			return chain, low, err
		}
		if a == nil {
			depth--
			continue
		}
		isBlock := a.tag == tagLexicalBlock || a.tag == tagTryBlock || a.tag == tagCatchBlock
		if a.tag != tagInlinedSubroutine && !isBlock {
			if err = u.skipEntry(&c, a); err != nil {
				return chain, low, err
			}
			continue
		}
		u.readEntry(&c, a, &e)
		if c.bad {
			return chain, low, malformed(".debug_info", p, "entry runs past its unit's end")
		}
		in, rangeErr := u.covers(&e.pcAttrs, pc)
		if err == nil {
			err = rangeErr
		}
		switch {
		case in && !isBlock && !e.callSite:
			// Without a call site the caller's line is unknown, and the
			// inner function's would be all there is: gdb shows the caller
			// (read_func_scope in dwarf2/read.c).
			return chain, low, err
		case in:
			if !isBlock {
				if len(chain) >= maxInlineDepth {
					return chain, low, limit(".debug_info", p, "inlined calls around one address")
				}
				chain = append(chain, e)
			}
			if !a.children {
				return chain, low, err
			}
			depth = 1
		case !a.children:
		case isBlock && !e.present():
			if depth++; depth > maxTreeDepth {
				return chain, low, limit(".debug_info", p, "nesting of entries")
			}
		default:
			if err = u.skipChildren(&c, e.sibling); err != nil {
				return chain, low, err
			}
		}
	}
	return chain, low, err
}

// entryOf returns a function's entry address: DW_AT_entry_pc when it is an
// address, else the first byte of its first range. Compilers list the part
// with the entry first and the split-off cold part after it.
func (u *unit) entryOf(e *entry) (low uint64, err error) {
	if e.entryPC.isAddr() {
		return u.addr(e.entryPC)
	}
	err = u.eachRange(&e.pcAttrs, func(lo, _ uint64) bool {
		low = lo
		return false
	})
	return low, err
}

// nameInto fills in the names that e, or the entries it refers to, carry.
func (u *unit) nameInto(f *Func, e *entry) error {
	cur := *e
	for n := 0; ; n++ {
		var err error
		if f.Name == "" && cur.name.present() {
			if f.Name, err = u.str(cur.name); err != nil {
				return err
			}
		}
		if f.Linkage == "" && cur.linkage.present() {
			if f.Linkage, err = u.str(cur.linkage); err != nil {
				return err
			}
		}
		f.External = f.External || cur.external
		if !cur.origin.present() {
			return nil
		}
		if n >= maxOriginChain {
			return limit(".debug_info", u.off, "abstract origins of one function")
		}
		t, off, err := u.ref(cur.origin)
		if err != nil {
			return err
		}
		c := at(t.info, off)
		a, err := t.abbrev(&c)
		if err != nil {
			return err
		}
		if a == nil {
			return malformed(".debug_info", off, "reference to a null entry")
		}
		t.readEntry(&c, a, &cur)
		if c.bad {
			return malformed(".debug_info", off, "entry runs past its unit's end")
		}
		u = t
	}
}
