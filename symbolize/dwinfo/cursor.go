package dwinfo

import (
	"bytes"
	"encoding/binary"
)

// cursor reads little-endian values from b. Past the end, or at a value that
// can't be decoded, bad becomes true, reads yield zero and the position stays
// at the end, so that a loop "while there is input" terminates.
type cursor struct {
	b   []byte
	p   int
	bad bool
}

func at(b []byte, p int) cursor {
	c := cursor{b: b}
	c.seek(p)
	return c
}

func (c *cursor) fail() {
	c.bad = true
	c.p = len(c.b)
}

func (c *cursor) seek(p int) {
	if p < 0 || p > len(c.b) {
		c.fail()
		return
	}
	c.p = p
}

func (c *cursor) done() bool { return c.p >= len(c.b) }

func (c *cursor) skip(n int) {
	if n < 0 || n > len(c.b)-c.p {
		c.fail()
		return
	}
	c.p += n
}

// skip64 skips a length that came from the input.
func (c *cursor) skip64(n uint64) {
	if n > uint64(len(c.b)-c.p) {
		c.fail()
		return
	}
	c.p += int(n)
}

func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(len(c.b)-c.p) {
		c.fail()
		return nil
	}
	s := c.b[c.p : c.p+int(n) : c.p+int(n)]
	c.p += int(n)
	return s
}

func (c *cursor) u8() uint8 {
	if c.p >= len(c.b) {
		c.fail()
		return 0
	}
	v := c.b[c.p]
	c.p++
	return v
}

func (c *cursor) u16() uint16 {
	if len(c.b)-c.p < 2 {
		c.fail()
		return 0
	}
	v := binary.LittleEndian.Uint16(c.b[c.p:])
	c.p += 2
	return v
}

func (c *cursor) u24() uint32 {
	lo := uint32(c.u16())
	return lo | uint32(c.u8())<<16
}

func (c *cursor) u32() uint32 {
	if len(c.b)-c.p < 4 {
		c.fail()
		return 0
	}
	v := binary.LittleEndian.Uint32(c.b[c.p:])
	c.p += 4
	return v
}

func (c *cursor) u64() uint64 {
	if len(c.b)-c.p < 8 {
		c.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(c.b[c.p:])
	c.p += 8
	return v
}

// uint reads an unsigned integer of n bytes, n in 1, 2, 4, 8.
func (c *cursor) uint(n int) uint64 {
	switch n {
	case 1:
		return uint64(c.u8())
	case 2:
		return uint64(c.u16())
	case 4:
		return uint64(c.u32())
	case 8:
		return c.u64()
	}
	c.fail()
	return 0
}

// uleb reads an unsigned LEB128 (7.6). Bits beyond the 64th are dropped, as
// padding that some assemblers emit; the encoding itself may be long.
func (c *cursor) uleb() uint64 {
	if c.p < len(c.b) && c.b[c.p] < 0x80 {
		c.p++
		return uint64(c.b[c.p-1])
	}
	return c.ulebLong()
}

func (c *cursor) ulebLong() uint64 {
	var v uint64
	for shift := uint(0); c.p < len(c.b); shift += 7 {
		x := c.b[c.p]
		c.p++
		if shift < 64 {
			v |= uint64(x&0x7f) << shift
		}
		if x < 0x80 {
			return v
		}
	}
	c.fail()
	return 0
}

func (c *cursor) sleb() int64 {
	var v int64
	for shift := uint(0); c.p < len(c.b); {
		x := c.b[c.p]
		c.p++
		if shift < 64 {
			v |= int64(x&0x7f) << shift
		}
		shift += 7
		if x < 0x80 {
			if shift < 64 && x&0x40 != 0 {
				v |= -1 << shift
			}
			return v
		}
	}
	c.fail()
	return 0
}

func (c *cursor) skipLEB() {
	for c.p < len(c.b) {
		c.p++
		if c.b[c.p-1] < 0x80 {
			return
		}
	}
	c.fail()
}

// cstr returns the bytes of a NUL-terminated string, without the NUL.
func (c *cursor) cstr() []byte {
	n := bytes.IndexByte(c.b[c.p:], 0)
	if n < 0 {
		c.fail()
		return nil
	}
	s := c.b[c.p : c.p+n : c.p+n]
	c.p += n + 1
	return s
}

// initialLength reads a unit length (7.4) and returns it with the size of the
// unit's offsets, 4 or 8.
func (c *cursor) initialLength() (n uint64, offSize int) {
	v := c.u32()
	switch {
	case v == 0xffffffff:
		return c.u64(), 8
	case v >= 0xfffffff0: // reserved (7.2.2)
		c.fail()
		return 0, 4
	}
	return uint64(v), 4
}
