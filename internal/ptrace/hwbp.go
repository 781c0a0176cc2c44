package ptrace

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/proc"
)

const (
	hwBreakpointX = 4 // HW_BREAKPOINT_X, uapi/linux/hw_breakpoint.h
	trapBRKPT     = 1 // TRAP_BRKPT, uapi/asm-generic/siginfo.h
	trapTrace     = 2 // TRAP_TRACE
	trapHWBKPT    = 4 // TRAP_HWBKPT
	trapPerf      = 6 // TRAP_PERF
	// perfTrapAsync is TRAP_PERF_FLAG_ASYNC: SIGTRAP was blocked when the
	// breakpoint was hit, so the thread has run on.
	perfTrapAsync = 1
	// perfBitRemoveOnExec and perfBitSigtrap are bits of struct
	// perf_event_attr, Linux 5.13 and later.
	perfBitRemoveOnExec = 1 << 36
	perfBitSigtrap      = 1 << 37
	perfTypeBreakpoint  = 5
)

// hwbp is the engine that uses the processor's debug registers through
// perf_event_open. The kernel raises SIGTRAP before the instruction runs and
// lets it pass afterwards, so nothing has to be emulated and no byte changes.
type hwbp struct {
	s   *session
	bps []Breakpoint
	si  trapInfo
	off bool
	// bare says that the last hit came as a plain debug exception; see hit.
	bare  bool
	guard *guard // nil unless threads have been exposed
}

func newHWBP(s *session, bps []Breakpoint) *hwbp { return &hwbp{s: s, bps: bps} }

func (e *hwbp) prepare() error {
	if len(e.bps) > MaxHardware {
		return fmt.Errorf("%w: %d, and the processor has %d debug registers", ErrTooMany, len(e.bps), MaxHardware)
	}
	return placed(e.bps)
}

func (e *hwbp) arm() error {
	// Events start disabled, so that a refusal leaves no trace.
	e.off = true
	for _, t := range e.s.threads {
		if err := ignoreGone(e.addThread(t)); err != nil {
			return err
		}
	}
	if err := e.s.spread(e.layout); err != nil && !errors.Is(err, ErrOwnAction) {
		return err
	}
	if err := e.protect(); err != nil {
		return err
	}
	return e.unpause()
}

// protect sees to threads that block SIGTRAP, which a bare exception (see hit)
// forces on them. A guard blocks it again should this process die.
func (e *hwbp) protect() error {
	if !e.s.masked() {
		return nil
	}
	var err error
	if e.guard, err = startGuard(); err != nil {
		return err
	}
	return e.guard.expose(e.s, e.s.undo)
}

// layout is the net's page.
func (e *hwbp) layout(page uint64) (code []byte, handler, restorer uint64) {
	code = make([]byte, netPageSize)
	copy(code, hwbpHandler)
	copy(code[restorerAt:], sigreturn)
	return code, page, page + restorerAt
}

func (e *hwbp) addThread(t *tracee) error {
	if t.child {
		return nil
	}
	for i, bp := range e.bps {
		attr := unix.PerfEventAttr{
			Type:     perfTypeBreakpoint,
			Sample:   1,
			Bp_type:  hwBreakpointX,
			Ext1:     uint64(bp.Addr),
			Ext2:     breakLen,
			Bits:     unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv | perfBitRemoveOnExec | perfBitSigtrap,
			Sig_data: uint64(i),
		}
		if e.off {
			attr.Bits |= unix.PerfBitDisabled
		}
		attr.Size = perfAttrSize
		fd, err := unix.PerfEventOpen(&attr, t.tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			e.dropThread(t)
			return perfError(bp, err)
		}
		t.fds = append(t.fds, fd)
	}
	return nil
}

func perfError(bp Breakpoint, err error) error {
	what := fmt.Sprintf("hardware breakpoint on %s at %s", bp.Name, bp.Addr)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		why, remedy := proc.OwnAccess().PerfAdvice()
		return fmt.Errorf("%s: %w (%s; %s)", what, err, why, remedy)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%s: %w: all debug registers are in use by another debugger", what, ErrTooMany)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%s: %w (%w; needs Linux 5.13 and a processor, or a virtual machine, with debug registers)", what, ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (e *hwbp) dropThread(t *tracee) {
	for _, fd := range t.fds {
		_ = unix.Close(fd)
	}
	t.fds = nil
}

func (e *hwbp) control(req uint) error {
	var errs error
	for _, t := range e.s.threads {
		for _, fd := range t.fds {
			errs = errors.Join(errs, unix.IoctlSetInt(fd, req, 0))
		}
	}
	return errs
}

func (e *hwbp) pause() error {
	e.off = true
	return e.control(unix.PERF_EVENT_IOC_DISABLE)
}

func (e *hwbp) unpause() error {
	e.off = false
	return e.control(unix.PERF_EVENT_IOC_ENABLE)
}

// disarm closes the events first: a SIGTRAP that is already on its way has
// been taken by stopAll, so the net can go next.
func (e *hwbp) disarm() error {
	for _, t := range e.s.threads {
		e.dropThread(t)
	}
	return errors.Join(e.finishSteps(), e.s.cover(), e.s.unspread())
}

func (e *hwbp) inMemory() bool       { return false }
func (e *hwbp) forked(*tracee) error { return nil }
func (e *hwbp) original(*userRegs)   {}

// lost tells the guard that there is nothing left to do.
func (e *hwbp) lost() {
	if e.guard != nil {
		e.guard.dismiss()
		e.guard = nil
	}
}

// hit also knows the breakpoint when the processor's status register (DR6) was
// empty, as was seen with several threads in a busy virtual machine. The
// kernel then takes the exception for a stray INT1 (arch/x86/kernel/traps.c,
// exc_debug_user) and forces a SIGTRAP that no perf event has signed. It would
// kill the worker if it were delivered.
func (e *hwbp) hit(t *tracee, r *userRegs) (int, error) {
	if err := getSigInfo(t.tid, &e.si); err != nil {
		return notOurs, err
	}
	if over, err := e.stepOver(t); over || err != nil {
		return stale, err
	}
	signed := e.si.Code == trapPerf && e.si.PerfType == perfTypeBreakpoint && e.si.PerfData < uint64(len(e.bps))
	e.bare = e.si.Code == trapBRKPT || e.si.Code == trapHWBKPT || strayTraps && e.si.Code == trapTrace
	if !signed && !e.bare {
		return notOurs, nil
	}
	if err := getRegs(t.tid, r); err != nil {
		return notOurs, err
	}
	if e.bare {
		// A real INT1 would have left the program counter behind itself.
		i := slices.IndexFunc(e.bps, func(b Breakpoint) bool { return uint64(b.Addr) == *pcOf(r) })
		if i < 0 && strayTraps {
			return stale, nil
		}
		return i, nil
	}
	bp := int(e.si.PerfData)
	if e.si.PerfFlags&perfTrapAsync != 0 || *pcOf(r) != uint64(e.bps[bp].Addr) {
		return stale, nil
	}
	return bp, nil
}
