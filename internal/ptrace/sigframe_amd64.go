package ptrace

import (
	"encoding/binary"
	"fmt"
	"os"
)

// The frame that rt_sigreturn(2) reads: struct rt_sigframe without its
// siginfo, and behind it the floating-point state (arch/x86/include/asm/
// sigframe.h, uapi/asm/sigcontext.h, uapi/asm-generic/ucontext.h).
const (
	// ntX86XState is NT_X86_XSTATE of elf.h: the floating-point and vector registers.
	ntX86XState = 0x202

	framePretcode = 0
	frameFlags    = 8  // uc_flags
	frameAltstack = 24 // uc_stack: sp, flags, size
	frameRegs     = 48 // uc_mcontext
	frameMask     = frameRegs + 256
	frameSize     = frameMask + 8

	fpAlign = 64
	// fpLegacy is the size of FXSAVE's area; at fpSoftware in it the kernel
	// keeps struct _fpx_sw_bytes.
	fpLegacy   = 512
	fpSoftware = 464
	fpHeader   = 64
	fpMagic1   = 0x46505853
	fpMagic2   = 0x46505845
	// fpMax bounds the state to what a signal frame has by default: that of
	// AMX tiles, which starts here, is only there for threads that asked for it.
	fpMax        = 2752
	fpFeatureAMX = 1<<17 | 1<<18

	// The flags of uc_flags: an XSAVE image, and ss is to be taken as it is.
	ucFlags = 1 | 2 | 4
	// noAltstack is a mode that sigaltstack(2) refuses, and rt_sigreturn
	// ignores that: the thread's alternate stack stays what it is.
	noAltstack = 0x4
)

// The kernel's codes for an interrupted system call that is to be restarted
// (linux/errno.h). Programs never see them.
const (
	eRestartSys     = 512
	eRestartNoIntr  = 513
	eRestartNoHand  = 514
	eRestartRestart = 516 // ERESTART_RESTARTBLOCK
)

// wayHome writes a signal frame that restores the thread as it stands, and
// data, below the thread's red zone. It returns the stack pointer with which a
// ret leads to the frame's restorer, and where data is.
func (s *session) wayHome(t *tracee, mem *os.File, r *userRegs, mask uint64, data []byte) (sp, at uint64, err error) {
	fp, err := fpState(t.tid)
	if err != nil {
		return 0, 0, fmt.Errorf("read the floating-point state: %w", err)
	}
	at = (r.Rsp - redZone - uint64(len(data))) &^ 15
	fpAt := (at - uint64(len(fp))) &^ (fpAlign - 1)
	sp = (fpAt - frameSize) &^ 15
	b := make([]byte, at+uint64(len(data))-sp)
	le := binary.LittleEndian
	le.PutUint64(b[framePretcode:], s.code.goBack)
	le.PutUint64(b[frameFlags:], ucFlags)
	le.PutUint32(b[frameAltstack+8:], noAltstack)
	home := restarted(r)
	for i, v := range []uint64{
		home.R8, home.R9, home.R10, home.R11, home.R12, home.R13, home.R14, home.R15,
		home.Rdi, home.Rsi, home.Rbp, home.Rbx, home.Rdx, home.Rax, home.Rcx, home.Rsp, home.Rip, home.Eflags,
		home.Cs&0xffff | home.Ss&0xffff<<48,
	} {
		le.PutUint64(b[frameRegs+8*i:], v)
	}
	le.PutUint64(b[frameRegs+184:], fpAt)
	le.PutUint64(b[frameMask:], mask)
	copy(b[fpAt-sp:], fp)
	copy(b[at-sp:], data)
	// Below the stack pointer nothing is anyone's, so nothing has to be put
	// back. A stack that is at its deepest grows by this write, as it does for a signal.
	if _, err := mem.WriteAt(b, int64(sp)); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return sp, at, nil
}

// restarted is what the thread's registers are once the kernel has seen to it
// that an interrupted system call runs again. One that would go on with the
// rest of its time runs from the start: rt_sigreturn forgets how much was left.
func restarted(r *userRegs) userRegs {
	home := *r
	if int64(r.Orig_rax) < 0 {
		return home
	}
	switch -int64(r.Rax) {
	case eRestartSys, eRestartNoIntr, eRestartNoHand, eRestartRestart:
		home.Rax = r.Orig_rax
		home.Rip -= 2
	}
	return home
}

// fpState is the thread's floating-point and vector registers as a signal frame
// has them: an XSAVE image with the kernel's marks.
func fpState(tid int) ([]byte, error) {
	buf := make([]byte, 16<<10)
	n, err := readSet(tid, ntX86XState, buf)
	if err != nil {
		return nil, err
	}
	if n < fpLegacy+fpHeader {
		return nil, fmt.Errorf("it has %d bytes", n)
	}
	n = min(n, fpMax)
	b := buf[:n+4]
	le := binary.LittleEndian
	features := le.Uint64(b[fpLegacy:]) &^ fpFeatureAMX
	le.PutUint64(b[fpLegacy:], features)
	clear(b[fpSoftware:fpLegacy])
	le.PutUint32(b[fpSoftware:], fpMagic1)
	le.PutUint32(b[fpSoftware+4:], uint32(n)+4)
	// What the image leaves out is put into its initial state, which is what
	// it was in.
	le.PutUint64(b[fpSoftware+8:], features|3)
	le.PutUint32(b[fpSoftware+16:], uint32(n))
	le.PutUint32(b[n:], fpMagic2)
	return b, nil
}
