package ptrace

const (
	// MaxHardware is the number of debug registers that hold an address (Intel
	// SDM vol. 3, 18.2.1). A debugger or another perf session may hold some.
	MaxHardware = 4
	// breakLen is sizeof(long): the only length an execution breakpoint may have.
	breakLen = 8
	flagRF   = 1 << 16 // resume flag (Intel SDM vol. 3, 18.3.1.1)
)

// hwbpHandler sets the resume flag in the saved registers, so that the
// instruction runs.
var hwbpHandler = []byte{
	0x81, 0x8a, 0xb0, 0, 0, 0, 0, 0, 1, 0, // orl $0x10000,0xb0(%rdx)   uc_mcontext.gregs[REG_EFL]
	0xc3, // ret
}

// pass mostly has nothing to do: the kernel has set the resume flag, which lets
// the instruction run once. After a bare exception that is left to be done.
func (e *hwbp) pass(t *tracee, _ int, r *userRegs) error {
	if !e.bare {
		return nil
	}
	r.Eflags |= flagRF
	return setRegs(t.tid, r)
}

func (e *hwbp) rewind(*tracee, *userRegs) error { return nil }

// stepOn, stepOver and finishSteps are arm64's needs.
func stepOn(t *tracee, sig int) error { return cont(t.tid, sig) }

func (e *hwbp) stepOver(*tracee) (bool, error) { return false, nil }

func (e *hwbp) finishSteps() error { return nil }

// strayTraps says that a debug exception without a perf event is nobody's: no
// compiler emits INT1, and nobody else can step a thread that is traced. The
// processor's status register was seen empty in busy virtual machines, which
// makes the kernel guess, so what it guesses is not trusted to be meant.
const strayTraps = true
