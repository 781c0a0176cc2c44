package arm64

import "math/bits"

// Bits of the processor state.
const (
	flagN, flagZ, flagC, flagV = uint64(1) << 31, uint64(1) << 30, uint64(1) << 29, uint64(1) << 28

	// StatusFlags are those that arithmetic sets.
	StatusFlags = flagN | flagZ | flagC | flagV

	pstateBType = uint64(3) << 10
)

// read gives a register's value; 31 is the zero register.
func read(r *Regs, n uint32, wide bool) uint64 {
	if n == 31 {
		return 0
	}
	if !wide {
		return uint64(uint32(r.X[n]))
	}
	return r.X[n]
}

// write sets a register; a 32-bit result clears the upper half.
func write(r *Regs, n uint32, wide bool, v uint64) {
	if !wide {
		v = uint64(uint32(v))
	}
	if n != 31 {
		r.X[n] = v
	}
}

// readSP and writeSP take 31 for the stack pointer.
func readSP(r *Regs, n uint32, wide bool) uint64 {
	if n != 31 {
		return read(r, n, wide)
	}
	if !wide {
		return uint64(uint32(r.SP))
	}
	return r.SP
}

func writeSP(r *Regs, n uint32, wide bool, v uint64) {
	switch {
	case n != 31:
		write(r, n, wide, v)
	case wide:
		r.SP = v
	default:
		r.SP = uint64(uint32(v))
	}
}

// operation emulates what neither branches nor names an address; nil when it
// does not know how. The forms are those of Arm ARM, C4.1.
func operation(w uint32) func(*Regs, Store) error {
	switch {
	case w&0x1f800000 == 0x11000000:
		return addImmediate(w)
	case w&0x1f800000 == 0x12000000:
		return logicalImmediate(w)
	case w&0x1f800000 == 0x12800000:
		return moveWide(w)
	case w&0x1f000000 == 0x0a000000:
		return logicalRegister(w)
	case w&0x1f200000 == 0x0b000000:
		return addRegister(w)
	case w&0xffc003e0 == 0xa98003e0, w&0xffc003e0 == 0xa90003e0:
		return storePair(w)
	case w&0xffe00fe0 == 0xf8000fe0:
		return push(w)
	case w&0xffc003e0 == 0xf90003e0:
		at := uint64(w >> 10 & 0xfff << 3)
		return toStack(func(r *Regs, st Store) error { return st(r.SP+at, read(r, w&31, true)) })
	}
	return nil
}

// toStack refuses what the processor would: an access by a stack pointer that
// is no multiple of 16.
func toStack(f func(r *Regs, st Store) error) func(*Regs, Store) error {
	return func(r *Regs, st Store) error {
		if r.SP%16 != 0 {
			return ErrStack
		}
		return f(r, st)
	}
}

// storePair is "stp x, x, [sp, #n]", and with "!" behind it.
func storePair(w uint32) func(*Regs, Store) error {
	off := signed(w>>15&0x7f, 7) << 3
	back := w&0x00800000 != 0
	return toStack(func(r *Regs, st Store) error {
		at := r.SP + off
		if err := st(at, read(r, w&31, true)); err != nil {
			return err
		}
		if err := st(at+8, read(r, w>>10&31, true)); err != nil {
			return err
		}
		if back {
			r.SP = at
		}
		return nil
	})
}

// push is "str x, [sp, #n]!".
func push(w uint32) func(*Regs, Store) error {
	off := signed(w>>12&0x1ff, 9)
	return toStack(func(r *Regs, st Store) error {
		if err := st(r.SP+off, read(r, w&31, true)); err != nil {
			return err
		}
		r.SP += off
		return nil
	})
}

func moveWide(w uint32) func(*Regs, Store) error {
	wide, shift := w>>31 != 0, w>>21&3<<4
	if !wide && shift > 16 {
		return nil
	}
	v := uint64(w>>5&0xffff) << shift
	switch w >> 29 & 3 {
	case 0:
		v = ^v
	case 2:
	case 3:
		keep := ^(uint64(0xffff) << shift)
		return func(r *Regs, _ Store) error {
			write(r, w&31, wide, read(r, w&31, wide)&keep|v)
			return nil
		}
	default:
		return nil
	}
	return func(r *Regs, _ Store) error { write(r, w&31, wide, v); return nil }
}

func addImmediate(w uint32) func(*Regs, Store) error {
	wide := w>>31 != 0
	imm := uint64(w >> 10 & 0xfff)
	if w&(1<<22) != 0 {
		imm <<= 12
	}
	return func(r *Regs, _ Store) error {
		v, flags := sum(readSP(r, w>>5&31, wide), imm, w&(1<<30) != 0, wide)
		if w&(1<<29) == 0 {
			writeSP(r, w&31, wide, v)
			return nil
		}
		write(r, w&31, wide, v)
		r.Pstate = r.Pstate&^StatusFlags | flags
		return nil
	}
}

func addRegister(w uint32) func(*Regs, Store) error {
	wide, amount := w>>31 != 0, w>>10&63
	if w>>22&3 == 3 || !wide && amount > 31 {
		return nil
	}
	return func(r *Regs, _ Store) error {
		b := shifted(read(r, w>>16&31, wide), w>>22&3, amount, wide)
		v, flags := sum(read(r, w>>5&31, wide), b, w&(1<<30) != 0, wide)
		write(r, w&31, wide, v)
		if w&(1<<29) != 0 {
			r.Pstate = r.Pstate&^StatusFlags | flags
		}
		return nil
	}
}

func logicalImmediate(w uint32) func(*Regs, Store) error {
	wide := w>>31 != 0
	imm, ok := bitmask(w>>22&1, w>>10&63, w>>16&63, wide)
	if !ok {
		return nil
	}
	return func(r *Regs, _ Store) error {
		v, flags := logic(w>>29&3, read(r, w>>5&31, wide), imm, wide)
		if w>>29&3 == 3 {
			write(r, w&31, wide, v)
			r.Pstate = r.Pstate&^StatusFlags | flags
			return nil
		}
		writeSP(r, w&31, wide, v)
		return nil
	}
}

func logicalRegister(w uint32) func(*Regs, Store) error {
	wide, amount := w>>31 != 0, w>>10&63
	if !wide && amount > 31 {
		return nil
	}
	return func(r *Regs, _ Store) error {
		b := shifted(read(r, w>>16&31, wide), w>>22&3, amount, wide)
		if w&(1<<21) != 0 {
			b = ^b
		}
		v, flags := logic(w>>29&3, read(r, w>>5&31, wide), b, wide)
		write(r, w&31, wide, v)
		if w>>29&3 == 3 {
			r.Pstate = r.Pstate&^StatusFlags | flags
		}
		return nil
	}
}

// shifted applies LSL, LSR, ASR or ROR.
func shifted(v uint64, how, by uint32, wide bool) uint64 {
	switch {
	case how == 0:
		return v << by
	case how == 1:
		return v >> by
	case how == 2 && wide:
		return uint64(int64(v) >> by)
	case how == 2:
		return uint64(int32(v) >> by)
	case wide:
		return bits.RotateLeft64(v, -int(by))
	}
	return uint64(bits.RotateLeft32(uint32(v), -int(by)))
}

// sum adds, or subtracts, and gives the flags.
func sum(a, b uint64, minus, wide bool) (v, flags uint64) {
	carry := uint64(0)
	if minus {
		b, carry = ^b, 1
	}
	var out uint64
	if wide {
		v, out = bits.Add64(a, b, carry)
	} else {
		var v32, c32 uint32
		v32, c32 = bits.Add32(uint32(a), uint32(b), uint32(carry))
		// The signs are compared in the upper half.
		a, b, v, out = a<<32, b<<32, uint64(v32)<<32, uint64(c32)
	}
	if out != 0 {
		flags |= flagC
	}
	if (a^v)&(b^v)>>63 != 0 {
		flags |= flagV
	}
	flags |= signs(v)
	if !wide {
		v >>= 32
	}
	return v, flags
}

// signs gives N and Z of a value that fills 64 bits.
func signs(v uint64) (flags uint64) {
	if v == 0 {
		return flagZ
	}
	if v>>63 != 0 {
		return flagN
	}
	return 0
}

// logic is AND, ORR, EOR, or AND with flags.
func logic(op uint32, a, b uint64, wide bool) (v, flags uint64) {
	switch op {
	case 1:
		v = a | b
	case 2:
		v = a ^ b
	default:
		v = a & b
	}
	if !wide {
		v = uint64(uint32(v))
		return v, signs(v << 32)
	}
	return v, signs(v)
}

// bitmask decodes the immediate of a logical instruction: a run of ones,
// rotated, and repeated over the register (Arm ARM, J1.1.3, DecodeBitMasks).
func bitmask(n, imms, immr uint32, wide bool) (uint64, bool) {
	if !wide && n != 0 {
		return 0, false
	}
	length := bits.Len32(n<<6 | ^imms&63)
	if length < 2 {
		return 0, false
	}
	size := uint32(1) << (length - 1)
	ones, turn := imms&(size-1), immr&(size-1)
	if ones == size-1 {
		return 0, false
	}
	element := uint64(1)<<(ones+1) - 1
	if turn != 0 {
		element = element>>turn | element<<(size-turn)
		if size < 64 {
			element &= 1<<size - 1
		}
	}
	v := uint64(0)
	for at := uint32(0); at < 64; at += size {
		v |= element << at
	}
	if !wide {
		v = uint64(uint32(v))
	}
	return v, true
}
