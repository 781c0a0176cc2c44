package zend

import (
	"encoding/binary"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// maxFibers bounds how many fibers have resumed each other.
const maxFibers = 64

// FiberStack is the C stack of a fiber, and where the one that resumed it
// waits to go on.
type FiberStack struct {
	Low, High remote.Addr // of the fiber's own stack
	Resumer   remote.Addr // saved context of whoever resumed it
}

// Fibers returns the fibers that are being run, innermost first: each has a C
// stack of its own, on which its resumer's frames are not. Since 8.1.
func (th *Thread) Fibers(r remote.Reader) []FiberStack {
	l := th.rt.Layout
	if l.EGActiveFiber == 0 {
		return nil
	}
	main, err := remote.Pointer(r, th.eg+remote.Addr(l.EGMainContext))
	if err != nil || main == 0 {
		return nil
	}
	fiber, err := remote.Pointer(r, th.eg+remote.Addr(l.EGActiveFiber))
	var out []FiberStack
	for range maxFibers {
		if err != nil || fiber == 0 || fiber%8 != 0 {
			break
		}
		var s FiberStack
		caller, err1 := remote.Pointer(r, fiber+remote.Addr(l.FiberCaller))
		stack, err2 := remote.Pointer(r, fiber+remote.Addr(l.FiberContext+l.ContextStack))
		if err1 != nil || err2 != nil || caller == 0 {
			break
		}
		// struct _zend_fiber_stack { void *pointer; size_t size; … } (Zend/zend_fibers.c)
		low, err1 := remote.Pointer(r, stack)
		size, err2 := remote.Uint64(r, stack+8)
		var err3 error
		s.Resumer, err3 = remote.Pointer(r, caller+remote.Addr(l.ContextHandle))
		if err1 != nil || err2 != nil || err3 != nil || s.Resumer == 0 {
			break
		}
		high, ok := low.Add(size)
		if !ok {
			break
		}
		s.Low, s.High = low, high
		out = append(out, s)
		if caller == main {
			break
		}
		fiber = caller - remote.Addr(l.FiberContext)
	}
	return out
}

// savedRegs are the slots of a saved context in front of its program counter
// (Zend/asm/jump_x86_64_sysv_elf_gas.S).
var savedRegs = []int{remote.R12, remote.R13, remote.R14, remote.R15, remote.RBX, remote.RBP}

// savedPC is where in a saved context the program counter may stand: the
// layout has a slot more since 8.2, and further ones with shadow stacks.
var savedPC = []remote.Addr{0x38, 0x40, 0x48, 0x50}

// On arm64 a context has d8 to d15, x19 to x30 and the program counter
// (Zend/asm/jump_arm64_aapcs_elf_gas.S).
const (
	savedARM64, savedFirst = 0x40, 19 // where x19 is
	savedPCARM64           = 0xa0
	savedSizeARM64         = 0xb0
)

// SavedRegs reads the registers that a context will go on with. isCode tells
// whether an address lies in the engine's code.
func SavedRegs(r remote.Reader, arch remote.Arch, context remote.Addr, isCode func(remote.Addr) bool) (remote.Regs, bool) {
	regs := remote.Regs{Arch: arch}
	if arch == remote.ARM64 {
		b := make([]byte, savedSizeARM64)
		if err := remote.ReadFull(r, b, context); err != nil {
			return regs, false
		}
		for n := savedFirst; n <= remote.ARM64LR; n++ {
			regs.Set(n, binary.LittleEndian.Uint64(b[savedARM64+8*(n-savedFirst):]))
		}
		pc := remote.Addr(binary.LittleEndian.Uint64(b[savedPCARM64:]))
		regs.SetPC(pc)
		regs.SetSP(context + savedSizeARM64)
		return regs, isCode(pc)
	}
	for _, at := range savedPC {
		b := make([]byte, at+8)
		if err := remote.ReadFull(r, b, context); err != nil {
			return regs, false
		}
		pc := remote.Addr(binary.LittleEndian.Uint64(b[at:]))
		if !isCode(pc) {
			continue
		}
		for i, n := range savedRegs {
			regs.Set(n, binary.LittleEndian.Uint64(b[int(at)-8*(len(savedRegs)-i):]))
		}
		regs.SetPC(pc)
		regs.SetSP(context + at + 8)
		return regs, true
	}
	return regs, false
}
