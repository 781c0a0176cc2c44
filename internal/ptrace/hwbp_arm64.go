package ptrace

const (
	// maxHardware is the greatest number of breakpoint registers (Arm ARM,
	// ID_AA64DFR0_EL1.BRPs). Most processors have six, some of which a debugger
	// may hold; the kernel refuses what it has none for.
	maxHardware = 16
	breakLen    = 4 // an instruction
)

// layout is the net's page: a handler that does nothing. The kernel itself
// steps over the instruction behind a breakpoint.
func (e *hwbp) layout(page uint64) (code []byte, handler, restorer uint64) {
	code = make([]byte, netPageSize)
	copy(code, words(0xd65f03c0)) // ret
	copy(code[restorerAt:], sigreturn)
	return code, page, page + restorerAt
}

// pass makes the thread go on by a single step. The kernel has disabled the
// thread's breakpoints until a step is over (arch/arm64/kernel/hw_breakpoint.c,
// breakpoint_handler), and PTRACE_CONT would cancel the one that it has begun.
// The step is not reported: it ends when the breakpoints are enabled again.
func (e *hwbp) pass(t *tracee, _ int, _ *userRegs) error {
	t.step = true
	return nil
}

func (e *hwbp) rewind(t *tracee, _ *userRegs) error {
	t.step = true
	return nil
}
