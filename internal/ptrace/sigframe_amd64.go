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

// lay writes the frames that have a thread make the calls one after the other
// and then go home, below the thread's red zone. It returns the registers to
// start it with, and the addresses of the calls' data.
//
// Each call's ret leads to the restorer, which takes the registers of the next
// call from the next frame, and those of the thread itself from the last.
func (s *session) lay(t *tracee, mem *os.File, saved *userRegs, calls []call) (first userRegs, data []uint64, err error) {
	mask, err := getSigMask(t.tid)
	if err != nil {
		return first, nil, err
	}
	fp, err := fpState(t.tid)
	if err != nil {
		return first, nil, fmt.Errorf("read the floating-point state: %w", err)
	}
	at := saved.Rsp - redZone
	for i := range calls {
		at = (at - uint64(len(calls[i].data))) &^ 15
		data = append(data, at)
	}
	fpAt := (at - uint64(len(fp))) &^ (fpAlign - 1)
	const each = (frameSize + 15) &^ 15
	sp := (fpAt - uint64(len(calls))*each) &^ 15
	b := make([]byte, saved.Rsp-redZone-sp)
	for i := range calls {
		// The frame behind call i holds what comes after it.
		next, m := restarted(saved), mask
		if i+1 < len(calls) {
			next, m = s.calling(saved, &calls[i+1], sp+uint64(i+1)*each, data[i+1]), ^uint64(0)
		}
		s.frame(b[i*each:], &next, m, fpAt)
		copy(b[data[i]-sp:], calls[i].data)
	}
	copy(b[fpAt-sp:], fp)
	// Below the stack pointer nothing is anyone's, so nothing has to be put
	// back. A stack that is at its deepest grows by this write, as it does for a signal.
	if _, err := mem.WriteAt(b, int64(sp)); err != nil {
		return first, nil, fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return s.calling(saved, &calls[0], sp, data[0]), data, nil
}

// calling is what the registers are when a thread is about to make a call.
func (s *session) calling(saved *userRegs, c *call, sp, data uint64) userRegs {
	r := *saved
	r.Rip, r.Rsp, r.Rax, r.Orig_rax = s.code.call, sp, c.nr, ^uint64(0) // -1: nothing to restart
	for i, p := range []*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9} {
		if i < len(c.args) {
			if *p = c.args[i]; *p&inData != 0 && *p != ^uint64(0) {
				*p = data + *p&^inData
			}
		}
	}
	return r
}

// frame writes one signal frame.
func (s *session) frame(b []byte, r *userRegs, mask, fpAt uint64) {
	le := binary.LittleEndian
	le.PutUint64(b[framePretcode:], s.code.goBack)
	le.PutUint64(b[frameFlags:], ucFlags)
	le.PutUint32(b[frameAltstack+8:], noAltstack)
	for i, v := range []uint64{
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
		r.Rdi, r.Rsi, r.Rbp, r.Rbx, r.Rdx, r.Rax, r.Rcx, r.Rsp, r.Rip, r.Eflags,
		r.Cs&0xffff | r.Ss&0xffff<<48,
	} {
		le.PutUint64(b[frameRegs+8*i:], v)
	}
	le.PutUint64(b[frameRegs+184:], fpAt)
	le.PutUint64(b[frameMask:], mask)
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
	n, err := getXState(tid, buf)
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
