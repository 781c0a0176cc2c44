package remote

import "fmt"

// Addr is an address in the target's address space.
type Addr uint64

// Add returns a+n, and false when the sum wraps around.
func (a Addr) Add(n uint64) (Addr, bool) {
	s := a + Addr(n)
	return s, s >= a
}

// Offset returns a+d for a signed displacement d, and false when the result
// leaves the 64-bit address space.
func (a Addr) Offset(d int64) (Addr, bool) {
	if d >= 0 {
		return a.Add(uint64(d))
	}
	m := uint64(-d) // correct for MinInt64 too: two's complement wraps to 1<<63
	return a - Addr(m), uint64(a) >= m
}

// Distance returns a-b in bytes, and false when a lies below b.
func (a Addr) Distance(b Addr) (uint64, bool) {
	return uint64(a - b), a >= b
}

// String prints the address the way gdb does, as 0x and hexadecimal digits.
func (a Addr) String() string { return fmt.Sprintf("0x%x", uint64(a)) }
