package arm64

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/arch/arm64/arm64asm"
)

// Len is the length of an instruction in bytes.
const Len = 4

var (
	// ErrUndecoded says that the bytes are no instruction that is known here.
	ErrUndecoded = errors.New("unknown instruction")
	// ErrNotMovable says that an instruction can't be run elsewhere.
	ErrNotMovable = errors.New("instruction can't be run at another address")
	// ErrStack says that the processor would fault on the stack pointer.
	ErrStack = errors.New("misaligned stack pointer")
)

// Regs are the general registers of a stopped thread, in the order of the
// kernel's struct user_pt_regs.
type Regs struct {
	X              [31]uint64
	SP, PC, Pstate uint64
}

// Store writes a word to the thread's stack.
type Store func(at, value uint64) error

// kind is how a thread gets past an instruction.
type kind uint8

const (
	elsewhere kind = iota // by a copy of it in a slot
	computed              // by Emulate; a copy does, too
	page                  // by Emulate, or a load of the address it computes
	jump                  // by Emulate, or a jump
	call                  // … that notes the return address
	branch                // … that depends on a condition
)

// Insn is a decoded instruction.
type Insn struct {
	word uint32
	kind kind
	text string
	op   func(r *Regs, st Store) error // nil: not emulated
}

// Emulated reports whether Emulate can be used.
func (in *Insn) Emulated() bool { return in.op != nil }

func (in *Insn) String() string { return in.text }

// Bytes returns the instruction's code.
func (in *Insn) Bytes() []byte { return binary.LittleEndian.AppendUint32(nil, in.word) }

// Emulate does what the instruction would, when r.PC stands on it. After an
// error the registers are as before.
func (in *Insn) Emulate(r *Regs, st Store) error {
	if in.op == nil {
		return fmt.Errorf("%w: %s", ErrUndecoded, in.text)
	}
	if err := in.op(r, st); err != nil {
		return err
	}
	if in.kind < jump {
		r.PC += Len
	}
	// Whatever runs clears the mark that an indirect branch has left, by which
	// the next instruction would be taken for its target (Arm ARM, D8.4.5).
	r.Pstate &^= pstateBType
	return nil
}

// Decode reads the instruction at the start of code.
func Decode(code []byte) (*Insn, error) {
	if len(code) < Len {
		return nil, fmt.Errorf("%w: % x", ErrUndecoded, code)
	}
	w := binary.LittleEndian.Uint32(code)
	in := &Insn{word: w}
	d, err := arm64asm.Decode(code[:Len])
	switch {
	case hint(w):
		in.text = fmt.Sprintf("hint #%d", w>>5&0x7f)
		if err == nil {
			in.text = arm64asm.GNUSyntax(d)
		}
		if nothing(w) {
			in.kind, in.op = computed, func(*Regs, Store) error { return nil }
		}
		return in, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %#08x", ErrUndecoded, w)
	}
	in.text = arm64asm.GNUSyntax(d)
	if in.kind, in.op = transfer(w); in.op != nil {
		return in, nil
	}
	if in.op = operation(w); in.op != nil {
		in.kind = computed
		return in, nil
	}
	if in.op = address(w); in.op != nil {
		in.kind = page
		return in, nil
	}
	if !movable(w) {
		return nil, fmt.Errorf("%w: %s", ErrNotMovable, in.text)
	}
	return in, nil
}

// hint reports an instruction of the hint space: a no-op on processors that
// don't know it (Arm ARM, C4.1.94).
func hint(w uint32) bool { return w&0xfffff01f == 0xd503201f }

// nothing reports the hints that change no register wherever they are known:
// NOP, and BTI with its targets.
func nothing(w uint32) bool {
	switch w >> 5 & 0x7f {
	case 0, 32, 34, 36, 38:
		return true
	}
	return false
}

// movable reports instructions whose effect does not depend on their address,
// and which don't show it: loads and stores but for those relative to the
// program counter, and data processing but for ADR and ADRP, which come
// elsewhere. An exclusive load must not be stepped over either: the trap clears
// the monitor, and the loop it begins would never end.
func movable(w uint32) bool {
	switch {
	case w&0x3b000000 == 0x18000000: // load register (literal)
		return false
	case w&0x3f000000 == 0x08000000: // load and store exclusive, compare and swap
		return false
	case w&0x0a000000 == 0x08000000: // other loads and stores
		return true
	case w&0x1c000000 == 0x10000000: // data processing, immediate
		return w&0x1f000000 != 0x10000000
	case w&0x0e000000 == 0x0a000000, w&0x0e000000 == 0x0e000000: // register; floating point and vectors
		return true
	case w&^31 == 0xd53bd040: // mrs Xt, tpidr_el0
		return true
	}
	return false
}

// signed takes the lowest n bits as a signed number.
func signed(v uint32, n uint) uint64 {
	return uint64(int64(uint64(v)<<(64-n)) >> (64 - n))
}
