package dwinfo

// params are what the size of a form depends on.
type params struct {
	addrSize int8 // 1, 2, 4, 8
	offSize  int8 // 4, 8
	refSize  int8 // of DW_FORM_ref_addr: an address in version 2, an offset later
}

// attrSpec is one attribute of an abbreviation. size is that of the value in
// bytes, or variable.
type attrSpec struct {
	at, form uint16
	size     int16
	implicit int64
}

const variable = -1

type abbrev struct {
	tag      uint16
	children bool
	// fixed is the total size of all attribute values, or variable: most
	// entries are skipped with one addition.
	fixed int32
	// sibling is the offset of DW_AT_sibling when only values of fixed size
	// precede it and it is a reference of 4 bytes, as gcc writes it; else -1.
	sibling int32
	attrs   []attrSpec
}

// abbrevTable holds the abbreviations of one unit. Codes are dense in
// practice; sparse ones go to the map.
type abbrevTable struct {
	dense  []abbrev // index code-1
	sparse map[uint64]*abbrev
}

func (t *abbrevTable) get(code uint64) *abbrev {
	if i := code - 1; i < uint64(len(t.dense)) {
		return &t.dense[i]
	}
	return t.sparse[code]
}

// parseAbbrevs decodes the table at off (7.5.3).
func parseAbbrevs(sec []byte, off int, p params) (*abbrevTable, error) {
	c := at(sec, off)
	t := &abbrevTable{}
	var specs []attrSpec // one backing array for the table
	for {
		start := c.p
		code := c.uleb()
		if code == 0 && !c.bad {
			return t, nil
		}
		a := abbrev{tag: uint16(min(c.uleb(), 0xffff)), children: c.u8() != 0, sibling: -1}
		first := len(specs)
		fixed := int32(0)
		for {
			name, form := c.uleb(), c.uleb()
			if c.bad {
				return t, malformed(".debug_abbrev", start, "abbreviation runs past the end")
			}
			if name == 0 && form == 0 {
				break
			}
			if len(specs)-first >= maxAttrs {
				return t, limit(".debug_abbrev", start, "attributes of one abbreviation")
			}
			s := attrSpec{at: uint16(min(name, 0xffff)), form: uint16(min(form, 0xffff))}
			if form == formImplicitConst {
				s.implicit = c.sleb()
			}
			size, ok := formSize(s.form, p)
			if !ok {
				return t, malformed(".debug_abbrev", start, "unknown attribute form")
			}
			s.size = size
			if s.at == atSibling && s.form == formRef4 && fixed >= 0 {
				a.sibling = fixed
			}
			if size < 0 {
				fixed = variable
			} else if fixed >= 0 {
				fixed += int32(size)
			}
			specs = append(specs, s)
		}
		a.fixed = fixed
		a.attrs = specs[first:len(specs):len(specs)]
		if code == uint64(len(t.dense))+1 {
			t.dense = append(t.dense, a)
			continue
		}
		if t.sparse == nil {
			t.sparse = make(map[uint64]*abbrev)
		}
		if t.get(code) == nil { // 7.5.3: codes are unique; keep the first
			t.sparse[code] = &a
		}
	}
}

// formSize returns the size of a form's value in bytes, or variable; false for
// a form the package does not know, which can't be skipped either.
func formSize(form uint16, p params) (int16, bool) {
	switch form {
	case formFlagPresent, formImplicitConst:
		return 0, true
	case formData1, formFlag, formRef1, formStrx1, formAddrx1:
		return 1, true
	case formData2, formRef2, formStrx2, formAddrx2:
		return 2, true
	case formStrx3, formAddrx3:
		return 3, true
	case formData4, formRef4, formStrx4, formAddrx4, formRefSup4:
		return 4, true
	case formData8, formRef8, formRefSig8, formRefSup8:
		return 8, true
	case formData16:
		return 16, true
	case formAddr:
		return int16(p.addrSize), true
	case formRefAddr:
		return int16(p.refSize), true
	case formStrp, formLineStrp, formSecOffset, formStrpSup, formGNURefAlt, formGNUStrpAlt:
		return int16(p.offSize), true
	case formBlock, formBlock1, formBlock2, formBlock4, formExprloc, formString,
		formSdata, formUdata, formRefUdata, formIndirect, formStrx, formAddrx,
		formLoclistx, formRnglistx, formGNUAddrIndex, formGNUStrIndex:
		return variable, true
	}
	return 0, false
}
