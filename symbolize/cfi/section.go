// Package cfi decodes call-frame information, the tables that say how to find
// a function's caller: .eh_frame with .eh_frame_hdr (Linux Standard Base,
// "Exception Frames") and .debug_frame (DWARF 5, section 6.4).
//
// Contract: it never does I/O and never panics on foreign bytes; every loop is
// bounded by the bytes it consumes or by a named limit. Tables are decoded on
// demand, one entry at a time.
//
// Non-goal: it knows no registers' values; package symbolize applies a Row.
package cfi

import (
	"errors"
	"fmt"
	"sort"
	"sync"
)

// ErrNoEntry says that no entry covers an address.
var ErrNoEntry = errors.New("no call-frame information")

// ErrMalformed says that a table breaks its format.
var ErrMalformed = errors.New("malformed call-frame information")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Section is one module's call-frame information. Addresses are link-time
// addresses. It is safe for concurrent use.
type Section struct {
	data  []byte // .eh_frame or .debug_frame
	addr  uint64 // where data is linked
	eh    bool
	hdr   []byte // the sorted table of .eh_frame_hdr, nil when unusable
	haddr uint64

	once  sync.Once
	index []indexed // built when there is no table
}

type indexed struct {
	low, high uint64
	off       int
}

// NewEH describes an .eh_frame section linked at addr. hdr is .eh_frame_hdr
// linked at haddr; it may be nil or malformed, which costs speed only.
func NewEH(data []byte, addr uint64, hdr []byte, haddr uint64) *Section {
	s := &Section{data: data, addr: addr, eh: true}
	s.hdr, s.haddr = searchTable(hdr, haddr)
	return s
}

// NewDebug describes a .debug_frame section.
func NewDebug(data []byte) *Section { return &Section{data: data} }

// Pointer encodings (LSB, "DWARF Exception Header Encoding").
const (
	peAbsptr  = 0x00
	peUleb    = 0x01
	peUdata2  = 0x02
	peUdata4  = 0x03
	peUdata8  = 0x04
	peSleb    = 0x09
	peSdata2  = 0x0a
	peSdata4  = 0x0b
	peSdata8  = 0x0c
	pePCRel   = 0x10
	peDataRel = 0x30
	peIndir   = 0x80
	peOmit    = 0xff
)

// tableRow is the size of one row of the search table in the only encoding
// that linkers write: two sdata4, relative to the header.
const tableRow = 8

func searchTable(hdr []byte, haddr uint64) ([]byte, uint64) {
	c := cursor{b: hdr}
	version, ptrEnc, cntEnc, tabEnc := c.u8(), c.u8(), c.u8(), c.u8()
	if c.bad || version != 1 || tabEnc != peDataRel|peSdata4 {
		return nil, 0
	}
	encoded(&c, ptrEnc, haddr, haddr)
	n := encoded(&c, cntEnc, haddr, haddr)
	if c.bad || n == 0 || n > uint64(c.left()/tableRow) {
		return nil, 0
	}
	return c.b[c.off : c.off+int(n)*tableRow], haddr
}

// encoded reads a pointer in encoding enc. at is the address of the cursor's
// first byte; data is the base of data-relative pointers.
func encoded(c *cursor, enc uint8, at, data uint64) uint64 {
	if enc == peOmit {
		return 0
	}
	base := uint64(0)
	switch enc & 0x70 {
	case 0:
	case pePCRel:
		base = at + uint64(c.off)
	case peDataRel:
		base = data
	default:
		c.bad = true
		return 0
	}
	var v uint64
	switch enc & 0x0f {
	case peAbsptr, peUdata8, peSdata8:
		v = c.u64()
	case peUleb:
		v = c.uleb()
	case peSleb:
		v = uint64(c.sleb())
	case peUdata2:
		v = uint64(c.u16())
	case peSdata2:
		v = uint64(int64(int16(c.u16())))
	case peUdata4:
		v = uint64(c.u32())
	case peSdata4:
		v = uint64(int64(int32(c.u32())))
	default:
		c.bad = true
	}
	return base + v
}

// Function returns the range of the entry that covers pc: for code that
// compilers write, the function's own range.
func (s *Section) Function(pc uint64) (low, high uint64, err error) {
	f, err := s.find(pc)
	if err != nil {
		return 0, 0, err
	}
	return f.low, f.high, nil
}

// find locates and decodes the entry that covers pc.
func (s *Section) find(pc uint64) (*fde, error) {
	if s.hdr != nil {
		off, ok := s.search(pc)
		if !ok {
			return nil, ErrNoEntry
		}
		f, err := s.parse(off)
		if err == nil && pc >= f.low && pc < f.high {
			return f, nil
		}
		if err == nil {
			return nil, ErrNoEntry
		}
		// The table lies about where the entry is; the entries themselves
		// may still be good.
	}
	s.once.Do(s.buildIndex)
	i := sort.Search(len(s.index), func(i int) bool { return s.index[i].low > pc }) - 1
	if i < 0 || pc >= s.index[i].high {
		return nil, ErrNoEntry
	}
	return s.parse(s.index[i].off)
}

// search finds the row with the greatest start at or below pc and returns the
// entry's offset in the section.
func (s *Section) search(pc uint64) (int, bool) {
	n := len(s.hdr) / tableRow
	row := func(i int) (start, entry uint64) {
		c := cursor{b: s.hdr, off: i * tableRow}
		start = s.haddr + uint64(int64(int32(c.u32())))
		entry = s.haddr + uint64(int64(int32(c.u32())))
		return start, entry
	}
	i := sort.Search(n, func(i int) bool { start, _ := row(i); return start > pc }) - 1
	if i < 0 {
		return 0, false
	}
	_, entry := row(i)
	off := entry - s.addr
	return int(off), entry >= s.addr && off < uint64(len(s.data))
}

// buildIndex walks all entries once. Undecodable ones are left out: their
// functions then have no information, which is the truth.
func (s *Section) buildIndex() {
	for off := 0; off < len(s.data); {
		e, err := s.entryAt(off)
		if err != nil {
			break
		}
		if e.next <= off {
			break
		}
		if !e.isCIE {
			if f, err := s.parse(off); err == nil && f.high > f.low {
				s.index = append(s.index, indexed{f.low, f.high, off})
			}
		}
		off = e.next
	}
	sort.Slice(s.index, func(i, j int) bool { return s.index[i].low < s.index[j].low })
}
