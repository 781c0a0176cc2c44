package arm64

import (
	"encoding/binary"
	"fmt"
)

// MaxSlot bounds the length of a slot in bytes.
const MaxSlot = 40

// scratch returns a register for the way back that the instruction does not
// name in any of the places where it could name one.
func (in *Insn) scratch() (uint32, bool) {
	named := func(r uint32) bool {
		w := in.word
		if in.kind >= page { // the rest is the address
			return w&31 == r
		}
		return w&31 == r || w>>5&31 == r || w>>10&31 == r || w>>16&31 == r
	}
	for _, r := range []uint32{16, 17} {
		if !named(r) {
			return r, true
		}
	}
	return 0, false
}

// exit is where a slot is left, at an offset in it.
type exit struct {
	at int
	to uint64
}

// shape is a slot's code with holes for constants.
type shape struct {
	words []uint32
	loads []load
	exits []exit
}

// load is an instruction that is to load a constant.
type load struct {
	at    int // index in words
	reg   uint32
	value uint64
}

// leave appends a jump. RET is the one indirect branch whose target need not be
// marked as one where the process enforces that (BTI).
func (s *shape) leave(reg uint32, to uint64) {
	s.exits = append(s.exits, exit{len(s.words) * Len, to})
	s.constant(reg, to)
	s.words = append(s.words, 0xd65f0000|reg<<5) // ret reg
}

func (s *shape) constant(reg uint32, v uint64) {
	s.loads = append(s.loads, load{len(s.words), reg, v})
	s.words = append(s.words, 0)
}

// shape lays out the slot of the instruction at addr.
func (in *Insn) shape(addr uint64) (*shape, error) {
	reg, ok := in.scratch()
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotMovable, in.text)
	}
	s := &shape{}
	switch in.kind {
	case jump:
		s.leave(reg, in.target(addr))
		return s, nil
	case call:
		s.constant(30, addr+Len)
		s.leave(reg, in.target(addr))
		return s, nil
	case branch:
		// The same condition, over the two instructions that go on behind it.
		s.words = append(s.words, in.retarget(3*Len))
		s.leave(reg, addr+Len)
		s.leave(reg, in.target(addr))
		return s, nil
	case page:
		s.constant(in.word&31, in.target(addr))
	default:
		s.words = append(s.words, in.word)
	}
	s.leave(reg, addr+Len)
	return s, nil
}

// Slot returns code that does what the instruction at addr does and goes on
// where that would. It must lie at a multiple of 8.
func (in *Insn) Slot(addr uint64) ([]byte, error) {
	s, err := in.shape(addr)
	if err != nil {
		return nil, err
	}
	if len(s.words)%2 != 0 {
		s.words = append(s.words, nop)
	}
	code := make([]byte, 0, MaxSlot)
	for i, l := range s.loads {
		ahead := uint32(len(s.words) - l.at + 2*i) // in instructions
		s.words[l.at] = 0x58000000 | ahead<<5 | l.reg
	}
	for _, w := range s.words {
		code = binary.LittleEndian.AppendUint32(code, w)
	}
	for _, l := range s.loads {
		code = binary.LittleEndian.AppendUint64(code, l.value)
	}
	return code, nil
}

const nop = 0xd503201f

// Original translates an offset in the slot of the instruction at addr to where
// a thread that stands there would be without the slot.
func (in *Insn) Original(addr, off uint64) uint64 {
	s, err := in.shape(addr)
	if err != nil {
		return addr
	}
	at := addr
	for _, e := range s.exits {
		if off >= uint64(e.at) {
			at = e.to
		}
	}
	return at
}
