package ptrace

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The frame that rt_sigreturn(2) reads from the stack pointer: struct rt_sigframe
// of arch/arm64/kernel/signal.c, which is a siginfo_t and a ucontext_t
// (uapi/asm/ucontext.h, uapi/asm/sigcontext.h). Behind the general registers,
// records tell what else there is.
const (
	frameInfo     = 128             // sizeof(siginfo_t)
	frameAltstack = frameInfo + 16  // uc_stack: sp, flags, size
	frameMask     = frameInfo + 40  // uc_sigmask
	frameRegs     = frameInfo + 184 // uc_mcontext.regs; sp, pc and pstate follow
	frameRecords  = frameInfo + 464 // uc_mcontext.__reserved
	recordsSize   = 4096
	frameSize     = frameRecords + recordsSize

	fpsimdMagic  = 0x46508001
	fpsimdRecord = 528 // struct fpsimd_context
	sveMagic     = 0x53564501
	sveHeader    = 16 // struct sve_context without the registers
	lastRecord   = 8  // a magic and a size of 0

	// noAltstack is a mode that sigaltstack(2) refuses, and rt_sigreturn
	// ignores that: the thread's alternate stack stays what it is.
	noAltstack = 0x4
)

// Register sets of elf.h, and what is in that of SVE (uapi/asm/ptrace.h).
const (
	ntPRFPREG = 2
	ntARMSVE  = 0x405

	svePtHeader = 16 // struct user_sve_header
	svePtFlags  = 12
	svePtVL     = 8
	sveActive   = 1 // SVE_PT_REGS_SVE
	maxSVE      = svePtHeader + 32*256 + 17*32 + 64
)

// lay writes the frames that have a thread make the calls one after the other
// and then go home, below its stack pointer. It returns the registers to start
// it with, and the addresses of the calls' data.
//
// The ret behind each call leads to the kernel's way back from a signal handler,
// which takes the registers of the next call from the next frame, and those of
// the thread itself from the last.
func (s *session) lay(t *tracee, mem *os.File, saved *userRegs, calls []call) (first userRegs, data []uint64, err error) {
	mask, err := getSigMask(t.tid)
	if err != nil {
		return first, nil, err
	}
	records, err := vectorState(t.tid)
	if err != nil {
		return first, nil, err
	}
	at := saved.SP - redZone
	for i := range calls {
		at = (at - uint64(len(calls[i].data))) &^ 15
		data = append(data, at)
	}
	sp := (at - uint64(len(calls))*frameSize) &^ 15
	b := make([]byte, saved.SP-redZone-sp)
	for i := range calls {
		// The frame behind call i holds what comes after it.
		next, m := *saved, mask
		if i+1 < len(calls) {
			next, m = s.calling(saved, &calls[i+1], sp+uint64(i+1)*frameSize, data[i+1]), ^uint64(0)
		}
		frame(b[i*frameSize:], &next, m, records)
		copy(b[data[i]-sp:], calls[i].data)
	}
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
	r.PC, r.SP, r.X[8], r.X[30] = s.code.call, sp, c.nr, s.code.goBack
	for i := range min(len(c.args), maxCallArgs) {
		if r.X[i] = c.args[i]; r.X[i]&inData != 0 && r.X[i] != ^uint64(0) {
			r.X[i] = data + r.X[i]&^inData
		}
	}
	return r
}

// frame writes one signal frame. An interrupted system call runs again from its
// start: the kernel has put the program counter on its svc, and rt_sigreturn
// forgets how much of its time was left.
func frame(b []byte, r *userRegs, mask uint64, records []byte) {
	le := binary.LittleEndian
	le.PutUint32(b[frameAltstack+8:], noAltstack)
	le.PutUint64(b[frameMask:], mask)
	for i, v := range r.X {
		le.PutUint64(b[frameRegs+8*i:], v)
	}
	for i, v := range []uint64{r.SP, r.PC, r.Pstate} {
		le.PutUint64(b[frameRegs+8*(len(r.X)+i):], v)
	}
	copy(b[frameRecords:frameSize], records)
}

// vectorState is the thread's floating-point and vector registers as a signal
// frame has them. Those of SVE are there when they hold more than the others.
func vectorState(tid int) ([]byte, error) {
	le := binary.LittleEndian
	set := make([]byte, fpsimdRecord)
	if n, err := readSet(tid, ntPRFPREG, set); err != nil || n < fpsimdRecord-8 {
		return nil, fmt.Errorf("read the floating-point registers (%d bytes): %w", n, err)
	}
	b := le.AppendUint32(nil, fpsimdMagic)
	b = le.AppendUint32(b, fpsimdRecord)
	b = append(b, set[512:520]...) // fpsr, fpcr: behind the registers there, before them here
	b = append(b, set[:512]...)
	sve := make([]byte, maxSVE)
	n, err := readSet(tid, ntARMSVE, sve)
	if err != nil || n < svePtHeader || le.Uint16(sve[svePtFlags:])&sveActive == 0 {
		return b, nil // EINVAL: a processor without
	}
	vl := int(le.Uint16(sve[svePtVL:]))
	regs := 32*vl + 17*vl/8
	size := (sveHeader + regs + 15) &^ 15
	switch {
	case vl == 0 || vl%16 != 0 || svePtHeader+regs > n:
		return nil, fmt.Errorf("%w: an SVE state of %d bytes with vectors of %d", ErrUnsupported, n, vl)
	case len(b)+size+lastRecord > recordsSize:
		return nil, fmt.Errorf("%w: SVE vectors of %d bytes", ErrUnsupported, vl)
	}
	rec := make([]byte, size)
	le.PutUint32(rec, sveMagic)
	le.PutUint32(rec[4:], uint32(size))
	le.PutUint16(rec[8:], uint16(vl))
	copy(rec[sveHeader:], sve[svePtHeader:svePtHeader+regs])
	return append(b, rec...), nil
}

// setCall changes the number of the system call at whose entry a thread stands.
func setCall(tid int, nr uint64) error {
	n := uint32(nr)
	return regSet(unix.PTRACE_SETREGSET, tid, ntARMSystemCall, &n)
}
