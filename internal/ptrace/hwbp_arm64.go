package ptrace

import "errors"

const (
	// MaxHardware is the greatest number of breakpoint registers (Arm ARM,
	// ID_AA64DFR0_EL1.BRPs). Most processors have six, some of which a debugger
	// may hold; the kernel refuses what it has none for.
	MaxHardware = 16
	breakLen    = 4 // an instruction
	// trapStep is TRAP_TRACE, the si_code of a step that is reported: it was
	// asked for while no breakpoint was disabled.
	trapStep = trapTrace
	// trapHandler is the si_code where a step led into a signal handler
	// (kernel/signal.c, signal_delivered).
	trapHandler = 5
)

// hwbpHandler does nothing: the kernel itself steps over the instruction behind
// a breakpoint.
var hwbpHandler = words(0xd65f03c0) // ret

// The kernel gets a thread past its breakpoint by a step of its own: it disables
// all breakpoints of the thread, and when the step is over enables them again
// (arch/arm64/kernel/hw_breakpoint.c, breakpoint_handler and
// reinstall_suspended_bps). PTRACE_CONT cancels the step, and the breakpoints
// stay disabled for good. So the thread is resumed by PTRACE_SINGLESTEP, which
// is not reported: enabling the breakpoints uses it up. Where something stops
// the thread before it got past the instruction, the step is still to be made.
func (e *hwbp) pass(t *tracee, bp int, _ *userRegs) error {
	t.stepFrom = uint64(e.bps[bp].Addr)
	return nil
}

func (e *hwbp) rewind(t *tracee, r *userRegs) error {
	t.stepFrom = *pcOf(r)
	return nil
}

// stepOn resumes a thread by a step as long as it stands where one is due.
func stepOn(t *tracee, sig int) error {
	var r userRegs
	if err := getRegs(t.tid, &r); err != nil {
		return err
	}
	if r.PC != t.stepFrom {
		t.stepFrom = 0
		return cont(t.tid, sig)
	}
	return step(t.tid, sig)
}

// stepOver recognises a SIGTRAP stop that a step has brought about. At the
// beginning of a signal handler the step is still to be made.
func (e *hwbp) stepOver(t *tracee) (bool, error) {
	if e.si.Code == trapStep {
		return true, nil
	}
	if e.si.Code != trapHandler || t.stepFrom == 0 {
		return false, nil
	}
	var r userRegs
	if err := getRegs(t.tid, &r); err != nil {
		return false, err
	}
	t.stepFrom = r.PC
	return true, nil
}

// maxStepRounds bounds how often threads are let run to get past a breakpoint
// when all is over. One that is not scheduled in between takes another round.
const maxStepRounds = 20

// finishSteps gets every thread past the instruction from which a step is due,
// so that the next to set hardware breakpoints finds them enabled. They are
// closed by now.
func (e *hwbp) finishSteps() error {
	var errs error
	for range maxStepRounds {
		due := 0
		for _, t := range e.s.threads {
			if !t.stopped || t.group || t.stepFrom == 0 {
				continue
			}
			var r userRegs
			if err := getRegs(t.tid, &r); err != nil {
				errs = errors.Join(errs, ignoreGone(err))
				continue
			}
			if r.PC != t.stepFrom {
				continue
			}
			due++
			errs = errors.Join(errs, e.s.resume(t, 0))
		}
		if due == 0 || errs != nil {
			break
		}
		errs = errors.Join(errs, e.s.stopAll())
	}
	for _, t := range e.s.threads {
		t.stepFrom = 0
	}
	return errs
}

// strayTraps: here a bare exception is what a brk instruction raises.
const strayTraps = false
