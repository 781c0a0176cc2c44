package symbolize

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/phpwhy/phpwhy/symbolize/cfi"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// What is different on AArch64. A call leaves the return address in x30 (the
// link register) and nothing on the stack, so only a function that calls
// another has it saved. It may be signed: its upper bits are then a code that
// depends on a key of the process. x29 leads to a chain of records, each of a
// caller's x29 and a return address, but a record says nothing about where its
// frame ends: behind a frame found that way the stack pointer is unknown.
//
// Generated code is not walked out of here: none of its makers' habits on this
// architecture have been looked at.

// ErrNoLink says that a return address was in the link register of a frame
// whose registers are not all known.
var ErrNoLink = errors.New("the link register was not saved")

// calleeSavedARM64 are x19 to x28 and the frame pointer (AAPCS64, section 6.1.1).
var calleeSavedARM64 = []int{19, 20, 21, 22, 23, 24, 25, 26, 27, 28, remote.ARM64FP}

// addressBits covers every address below end. A process has its stack at the
// top of its address space, so that the highest mapping tells how many bits an
// address has: 39 to 52, as the kernel was configured. The rest of a signed
// address is its code.
func addressBits(end remote.Addr) uint64 {
	if end == 0 {
		return 0
	}
	return 1<<bits.Len64(uint64(end)-1) - 1
}

// callerARM64 finds the frame that called cur; row is nil when there is no
// table, for the reason why.
func (img *Image) callerARM64(cur *PhysicalFrame, row *cfi.Row, why error, mem remote.Reader) (PhysicalFrame, bool, error) {
	if next, ok := img.interrupted(cur, mem); ok {
		return next, false, nil
	}
	if row != nil {
		_, spKnown := cur.Regs.Get(remote.ARM64SP)
		next, root, err := img.apply(cur, row, mem)
		if err == nil || spKnown || row.CFAReg != remote.ARM64SP {
			return next, root, err
		}
		why = err
	} else if cur.PC == 0 {
		return PhysicalFrame{}, true, nil
	} else if next, ok := img.byLink(cur, mem); ok {
		return next, false, nil
	}
	if next, root, err := img.byRecord(cur, mem); err == nil {
		return next, root, nil
	}
	if sp := cur.Regs.SP(); sp != 0 && img.isInitial(sp, mem) {
		return PhysicalFrame{}, true, nil
	}
	return PhysicalFrame{}, false, fmt.Errorf("%w: %w", ErrNoUnwindInfo, why)
}

// byLink finds the caller of code without a table that has not touched the stack
// yet: at the first instruction of a function, and in a stub that jumps to one
// in another module.
func (img *Image) byLink(cur *PhysicalFrame, mem remote.Reader) (PhysicalFrame, bool) {
	lr, known := cur.Regs.Get(remote.ARM64LR)
	if !cur.Exact || !known || !img.calls(remote.Addr(lr), 0) {
		return PhysicalFrame{}, false
	}
	if !img.isEntry(cur.PC) && !img.inStub(cur.PC, mem) {
		return PhysicalFrame{}, false
	}
	cur.CFA = cur.Regs.SP()
	next := PhysicalFrame{PC: remote.Addr(lr), How: HowEntry, Regs: cur.Regs}
	next.Regs.SetPC(next.PC)
	next.Regs.Forget(remote.ARM64LR)
	return next, true
}

// isEntry reports whether a symbol says that a function begins at pc.
func (img *Image) isEntry(pc remote.Addr) bool {
	p := img.find(pc)
	if p == nil || p.mod == nil || p.err != nil {
		return false
	}
	at := uint64(pc) - p.bias
	s, ok := p.mod.symbolAt(at, at)
	return ok && s.Value == at
}

// stubLen is the number of instructions in a stub.
const stubLen = 5

// inStub recognises an entry of the procedure linkage table, which linkers
// write without call-frame information: bti c, if at all; adrp x16; ldr x17,
// [x16, …]; add x16, x16, …; br x17.
func (img *Image) inStub(pc remote.Addr, mem remote.Reader) bool {
	for n := remote.Addr(0); n < stubLen; n++ {
		var b [4]byte
		if img.code(b[:], pc+4*n, mem) != nil {
			return false
		}
		switch w := binary.LittleEndian.Uint32(b[:]); {
		case w == 0xd61f0220:
			return true
		case w == 0xd503245f, w&0x9f00001f == 0x90000010, w&0xffc003ff == 0xf9400211, w&0xff8003ff == 0x91000210:
		default:
			return false
		}
	}
	return false
}

// byRecord follows x29 to a frame record.
func (img *Image) byRecord(cur *PhysicalFrame, mem remote.Reader) (PhysicalFrame, bool, error) {
	fp, ok := cur.Regs.Get(remote.ARM64FP)
	if ok && fp == 0 && !cur.Exact { // the chain's end; the innermost code may use x29 for anything
		return PhysicalFrame{}, true, nil
	}
	if !ok || remote.Addr(fp) < cur.Regs.SP() || fp%8 != 0 {
		return PhysicalFrame{}, false, ErrNoUnwindInfo
	}
	var b [16]byte
	if err := remote.ReadFull(mem, b[:], remote.Addr(fp)); err != nil {
		return PhysicalFrame{}, false, err
	}
	saved, ra := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])&img.codeMask
	switch {
	case ra == 0 && saved == 0:
		return PhysicalFrame{}, true, nil
	case saved != 0 && saved <= fp, !img.calls(remote.Addr(ra), 0):
		return PhysicalFrame{}, false, ErrNoUnwindInfo
	}
	cur.CFA = 0
	next := PhysicalFrame{PC: remote.Addr(ra), How: HowFramePointer}
	next.Regs = remote.Regs{Arch: cur.Regs.Arch, TLS: cur.Regs.TLS}
	next.Regs.SetPC(next.PC)
	next.Regs.Set(remote.ARM64FP, saved)
	return next, false, nil
}

// The signal frame (arch/arm64/kernel/signal.c, struct rt_sigframe): siginfo_t
// and ucontext_t, which has fault_address, x0 to x30, sp, pc and pstate.
const (
	sigframeInfo = 128
	sigframeRegs = sigframeInfo + 176 + 8
)

// sigreturn is the code that a signal handler returns to, in the vDSO or a C
// library: mov x8, #139; svc #0. The vDSO's table names no other register than
// x29 and x30, so it does not lead to a function that was interrupted before it
// had saved them.
var sigreturn = [8]byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}

// interrupted restores the registers of the code that a signal has interrupted.
func (img *Image) interrupted(cur *PhysicalFrame, mem remote.Reader) (PhysicalFrame, bool) {
	sp, ok := cur.Regs.Get(remote.ARM64SP)
	if !ok || !img.returns(cur.PC, mem) && (!cur.Exact || !img.returns(cur.PC-4, mem)) {
		return PhysicalFrame{}, false
	}
	var b [33 * 8]byte
	if err := remote.ReadFull(mem, b[:], remote.Addr(sp+sigframeRegs)); err != nil {
		return PhysicalFrame{}, false
	}
	next := PhysicalFrame{How: HowCFI, Exact: true}
	next.Regs = remote.Regs{Arch: cur.Regs.Arch, TLS: cur.Regs.TLS}
	for n := range 33 { // in DWARF's order: x0 to x30, sp, pc
		next.Regs.Set(n, binary.LittleEndian.Uint64(b[n*8:]))
	}
	next.PC = next.Regs.PC()
	if m := img.maps.Find(next.PC); m == nil || !m.Exec {
		return PhysicalFrame{}, false
	}
	cur.CFA = remote.Addr(sp)
	return next, true
}

// returns reports whether pc is where a signal handler returns to.
func (img *Image) returns(pc remote.Addr, mem remote.Reader) bool {
	var code [len(sigreturn)]byte
	return img.code(code[:], pc, mem) == nil && code == sigreturn
}

// code reads instructions, from the file that they are in or from memory.
func (img *Image) code(b []byte, pc remote.Addr, mem remote.Reader) error {
	if p := img.find(pc); p != nil {
		if m, err := img.load(p); err == nil {
			return m.file.ReadAddr(b, uint64(pc)-p.bias)
		}
	}
	return remote.ReadFull(mem, b, pc)
}

// callBeforeARM64 looks for a call instruction at the end of b.
func callBeforeARM64(b []byte, end uint64) (call, bool) {
	if len(b) < 4 || end%4 != 0 {
		return call{}, false
	}
	w := binary.LittleEndian.Uint32(b[len(b)-4:])
	switch {
	case w>>26 == 0x25: // bl
		rel := int64(int32(w<<6)) >> 6 << 2
		return call{direct, end - 4 + uint64(rel)}, true
	case w&0xfffffc1f == 0xd63f0000, // blr
		w&0xfefff800 == 0xd63f0800: // blraa, blrab and those with a zero modifier
		return call{how: computed}, true
	}
	return call{}, false
}
