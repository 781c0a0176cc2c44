package perf

import (
	"golang.org/x/arch/x86/x86asm"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxSlide bounds how far behind a function's entry a probe may stand, and
	// maxBody what is read of a function, in bytes.
	maxSlide = 64
	maxBody  = 4096
)

// Place is where to probe a function.
type Place struct {
	Offset uint64 // from the function's entry, bytes
	// Emulated says that the kernel carries out the instruction there itself.
	// Any other it copies aside and single-steps, which takes a second trap;
	// in a virtual machine that was measured to cost eight times as much.
	Emulated bool
}

// Find chooses the place in a function's code: the first instruction that the
// kernel emulates (arch/x86/kernel/uprobes.c: nop, push, jumps and calls),
// provided that everything in front of it runs straight on, leaves the arguments
// in their registers, and is not jumped into. Otherwise it is the entry.
func Find(code []byte) Place {
	code = code[:min(len(code), maxBody)]
	at := 0
	for at < len(code) && at < maxSlide {
		if isEndbr(code[at:]) {
			at += len(endbr)
			continue
		}
		in, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			return Place{}
		}
		if emulated(code[at : at+in.Len]) {
			if at > 0 && jumpedInto(code, at) {
				return Place{}
			}
			return Place{Offset: uint64(at), Emulated: true}
		}
		if !harmless(&in) {
			return Place{}
		}
		at += in.Len
	}
	return Place{}
}

const endbr = "\xf3\x0f\x1e\xfa"

func isEndbr(b []byte) bool { return len(b) >= len(endbr) && string(b[:len(endbr)]) == endbr }

// emulated recognises what branch_setup_xol_ops and push_setup_xol_ops do.
func emulated(in []byte) bool {
	switch op := in[0]; {
	case op >= 0x50 && op <= 0x57, op == 0x90, op == 0xe8, op == 0xe9, op == 0xeb, op >= 0x70 && op <= 0x7f:
		return true
	case op == 0x0f && len(in) > 1:
		return in[1] >= 0x80 && in[1] <= 0x8f
	case op >= 0x40 && op <= 0x4f && len(in) == 2: // push of r8 to r15
		return in[1] >= 0x50 && in[1] <= 0x57
	}
	return false
}

// harmless are instructions that go on to the next one and change no argument.
func harmless(in *x86asm.Inst) bool {
	switch in.Op {
	case x86asm.CMP, x86asm.TEST:
		return true
	case x86asm.MOV, x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD, x86asm.LEA, x86asm.SUB, x86asm.ADD, x86asm.XOR, x86asm.AND, x86asm.OR:
		r, ok := in.Args[0].(x86asm.Reg)
		if !ok {
			_, ok = in.Args[0].(x86asm.Mem)
			return ok
		}
		return !isArgument[r]
	}
	return false
}

// isArgument are the registers of the first six arguments (System V ABI).
var isArgument = map[x86asm.Reg]bool{
	x86asm.DIB: true, x86asm.DI: true, x86asm.EDI: true, x86asm.RDI: true,
	x86asm.SIB: true, x86asm.SI: true, x86asm.ESI: true, x86asm.RSI: true,
	x86asm.DL: true, x86asm.DH: true, x86asm.DX: true, x86asm.EDX: true, x86asm.RDX: true,
	x86asm.CL: true, x86asm.CH: true, x86asm.CX: true, x86asm.ECX: true, x86asm.RCX: true,
	x86asm.R8B: true, x86asm.R8W: true, x86asm.R8L: true, x86asm.R8: true,
	x86asm.R9B: true, x86asm.R9W: true, x86asm.R9L: true, x86asm.R9: true,
}

// jumpedInto reports whether anything in the function jumps behind its entry
// and up to the place: a loop there would be counted as calls.
func jumpedInto(code []byte, place int) bool {
	for at := 0; at < len(code); {
		in, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			at++ // whatever it is, what is behind it may be code again
			continue
		}
		at += in.Len
		if rel, ok := in.Args[0].(x86asm.Rel); ok {
			if to := at + int(rel); to > 0 && to <= place {
				return true
			}
		}
	}
	return false
}

// OffsetIn returns the place in the file of an address in a mapping of it.
func OffsetIn(m *remote.Mapping, at remote.Addr) uint64 { return m.Offset + uint64(at-m.Start) }
