package x86

import "math/bits"

// The status flags of RFLAGS (Intel SDM vol. 1, 3.4.3.1).
const (
	flagCF = 1 << 0
	flagPF = 1 << 2
	flagAF = 1 << 4
	flagZF = 1 << 6
	flagSF = 1 << 7
	flagOF = 1 << 11

	// StatusFlags are those that arithmetic sets.
	StatusFlags uint64 = flagCF | flagPF | flagAF | flagZF | flagSF | flagOF
)

// common sets ZF, SF and PF from a result of the given size in bits.
func common(v uint64, size int) (uint64, uint64) {
	if size == 32 {
		v = uint64(uint32(v))
	}
	var f uint64
	if v == 0 {
		f |= flagZF
	}
	if v>>(size-1)&1 != 0 {
		f |= flagSF
	}
	if bits.OnesCount8(uint8(v))%2 == 0 {
		f |= flagPF
	}
	return v, f
}

func add(a, b uint64, size int) (uint64, uint64) {
	v, f := common(a+b, size)
	if v < a {
		f |= flagCF
	}
	if (a^v)&(b^v)>>(size-1)&1 != 0 {
		f |= flagOF
	}
	return v, f | (a^b^v)&flagAF
}

func sub(a, b uint64, size int) (uint64, uint64) {
	v, f := common(a-b, size)
	if a < b {
		f |= flagCF
	}
	if (a^b)&(a^v)>>(size-1)&1 != 0 {
		f |= flagOF
	}
	return v, f | (a^b^v)&flagAF
}

// logic clears CF and OF, and AF, which is undefined.
func logic(op func(a, b uint64) uint64) func(a, b uint64, size int) (uint64, uint64) {
	return func(a, b uint64, size int) (uint64, uint64) { return common(op(a, b), size) }
}
