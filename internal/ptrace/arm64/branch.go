package arm64

// Forms of instructions that name an address relative to their own.
func isADR(w uint32) bool   { return w&0x9f000000 == 0x10000000 }
func isADRP(w uint32) bool  { return w&0x9f000000 == 0x90000000 }
func isB(w uint32) bool     { return w&0xfc000000 == 0x14000000 }
func isBL(w uint32) bool    { return w&0xfc000000 == 0x94000000 }
func isBCond(w uint32) bool { return w&0xff000010 == 0x54000000 }
func isCBZ(w uint32) bool   { return w&0x7e000000 == 0x34000000 }
func isTBZ(w uint32) bool   { return w&0x7e000000 == 0x36000000 }

// target is the address that the instruction at addr names.
func (in *Insn) target(addr uint64) uint64 {
	w := in.word
	switch {
	case isADR(w):
		return addr + signed(w>>5&0x7ffff<<2|w>>29&3, 21)
	case isADRP(w):
		return addr&^0xfff + signed(w>>5&0x7ffff<<2|w>>29&3, 21)<<12
	case isB(w), isBL(w):
		return addr + signed(w&0x3ffffff, 26)<<2
	case isBCond(w), isCBZ(w):
		return addr + signed(w>>5&0x7ffff, 19)<<2
	case isTBZ(w):
		return addr + signed(w>>5&0x3fff, 14)<<2
	}
	return addr
}

// retarget changes how far a conditional branch goes, in bytes.
func (in *Insn) retarget(by uint32) uint32 {
	if isTBZ(in.word) {
		return in.word&^(0x3fff<<5) | by>>2<<5
	}
	return in.word&^(0x7ffff<<5) | by>>2<<5
}

// transfer emulates branches with a fixed target.
func transfer(w uint32) (kind, func(*Regs, Store) error) {
	in := &Insn{word: w}
	when := func(taken func(*Regs) bool) (kind, func(*Regs, Store) error) {
		return branch, func(r *Regs, _ Store) error {
			if taken(r) {
				r.PC = in.target(r.PC)
			} else {
				r.PC += Len
			}
			return nil
		}
	}
	switch {
	case isB(w):
		return jump, func(r *Regs, _ Store) error { r.PC = in.target(r.PC); return nil }
	case isBL(w):
		return call, func(r *Regs, _ Store) error {
			r.X[30], r.PC = r.PC+Len, in.target(r.PC)
			return nil
		}
	case isBCond(w):
		return when(func(r *Regs) bool { return holds(w&15, r.Pstate) })
	case isCBZ(w):
		return when(func(r *Regs) bool { return (read(r, w&31, w>>31 != 0) == 0) == (w>>24&1 == 0) })
	case isTBZ(w):
		bit := w>>31<<5 | w>>19&31
		return when(func(r *Regs) bool { return (read(r, w&31, true)>>bit&1 == 0) == (w>>24&1 == 0) })
	}
	return elsewhere, nil
}

// address emulates ADR and ADRP.
func address(w uint32) func(*Regs, Store) error {
	if !isADR(w) && !isADRP(w) {
		return nil
	}
	in := &Insn{word: w}
	return func(r *Regs, _ Store) error {
		write(r, w&31, true, in.target(r.PC))
		return nil
	}
}

// holds evaluates a condition code on the flags (Arm ARM, C1.2.4).
func holds(cond uint32, pstate uint64) bool {
	n, z := pstate&flagN != 0, pstate&flagZ != 0
	c, v := pstate&flagC != 0, pstate&flagV != 0
	var is bool
	switch cond >> 1 {
	case 0:
		is = z
	case 1:
		is = c
	case 2:
		is = n
	case 3:
		is = v
	case 4:
		is = c && !z
	case 5:
		is = n == v
	case 6:
		is = n == v && !z
	default:
		return true // AL, and its twin NV
	}
	return is == (cond&1 == 0)
}
