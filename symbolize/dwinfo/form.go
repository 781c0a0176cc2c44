package dwinfo

// value is an attribute value that has been read but not resolved: an offset,
// an index, a constant or, for blocks and inline strings, bytes.
type value struct {
	form uint16
	u    uint64 // constants are sign-extended where the form is signed
	b    []byte
}

func (v value) present() bool { return v.form != 0 }

// skipValue moves past a value.
func (c *cursor) skipValue(s *attrSpec, p params) {
	if s.size >= 0 {
		c.skip(int(s.size))
		return
	}
	c.skipVariable(s.form, p)
}

func (c *cursor) skipVariable(form uint16, p params) {
	switch form {
	case formSdata, formUdata, formRefUdata, formStrx, formAddrx, formLoclistx,
		formRnglistx, formGNUAddrIndex, formGNUStrIndex:
		c.skipLEB()
	case formExprloc, formBlock:
		c.skip64(c.uleb())
	case formBlock1:
		c.skip64(uint64(c.u8()))
	case formBlock2:
		c.skip64(uint64(c.u16()))
	case formBlock4:
		c.skip64(uint64(c.u32()))
	case formString:
		c.cstr()
	case formIndirect:
		c.indirect(p)
	default:
		c.fail()
	}
}

// indirect reads a value whose form precedes it (7.5.5). The form may be
// neither indirect again nor implicit_const, whose value has no place here.
func (c *cursor) indirect(p params) value {
	form := uint16(min(c.uleb(), 0xffff))
	size, ok := formSize(form, p)
	if !ok || form == formIndirect || form == formImplicitConst {
		c.fail()
		return value{}
	}
	s := attrSpec{form: form, size: size}
	return c.value(&s, p)
}

// value reads a value.
func (c *cursor) value(s *attrSpec, p params) value {
	v := value{form: s.form}
	switch s.form {
	case formFlagPresent:
		v.u = 1
	case formImplicitConst:
		v.u = uint64(s.implicit)
	case formData1, formFlag, formRef1, formStrx1, formAddrx1:
		v.u = uint64(c.u8())
	case formData2, formRef2, formStrx2, formAddrx2:
		v.u = uint64(c.u16())
	case formStrx3, formAddrx3:
		v.u = uint64(c.u24())
	case formData4, formRef4, formStrx4, formAddrx4, formRefSup4:
		v.u = uint64(c.u32())
	case formData8, formRef8, formRefSig8, formRefSup8:
		v.u = c.u64()
	case formAddr, formRefAddr, formStrp, formLineStrp, formSecOffset,
		formStrpSup, formGNURefAlt, formGNUStrpAlt:
		v.u = c.uint(int(s.size))
	case formSdata:
		v.u = uint64(c.sleb())
	case formUdata, formRefUdata, formStrx, formAddrx, formLoclistx,
		formRnglistx, formGNUAddrIndex, formGNUStrIndex:
		v.u = c.uleb()
	case formData16:
		v.b = c.bytes(16)
	case formExprloc, formBlock:
		v.b = c.bytes(c.uleb())
	case formBlock1:
		v.b = c.bytes(uint64(c.u8()))
	case formBlock2:
		v.b = c.bytes(uint64(c.u16()))
	case formBlock4:
		v.b = c.bytes(uint64(c.u32()))
	case formString:
		v.b = c.cstr()
	case formIndirect:
		return c.indirect(p)
	default:
		c.fail()
	}
	return v
}

// isBlock reports a value that is a location expression or a block.
func (v value) isBlock() bool {
	switch v.form {
	case formExprloc, formBlock, formBlock1, formBlock2, formBlock4:
		return true
	}
	return false
}

// isAddr reports a value of class address; DW_AT_high_pc is an address in that
// class and an offset from DW_AT_low_pc in any other (2.17.2).
func (v value) isAddr() bool {
	switch v.form {
	case formAddr, formAddrx, formAddrx1, formAddrx2, formAddrx3, formAddrx4, formGNUAddrIndex:
		return true
	}
	return false
}
