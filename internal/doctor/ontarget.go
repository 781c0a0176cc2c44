package doctor

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/report"
)

// engines says what each engine can do with the process: not more than on the
// host, and not what the process is in the way of.
func (s *subject) engines(host []report.EngineState, php bool) {
	for _, h := range host {
		e := report.EngineState{Engine: h.Engine, State: report.Works}
		switch {
		case h.State == report.Fails:
			e.State, e.Why = report.Fails, "not on this host, see above"
		case h.Engine == NoStop:
			s.noStop(&e)
		case s.t.Tracer != 0 && h.Engine != observe.EngineUprobe:
			e.State, e.Why, e.Remedy = report.Fails, "traced by "+tracer(s.t.Tracer), tracedRemedy
		case s.denied != nil:
			e.State, e.Why = report.Fails, "not permitted, see access"
		case !php:
			e.State, e.Why = report.Fails, "see php"
		default:
			s.engine(&e)
		}
		if !php && e.State != report.Fails {
			e.State, e.Why = report.Fails, "see php"
		}
		s.t.Engines = append(s.t.Engines, e)
	}
}

func (s *subject) engine(e *report.EngineState) {
	l := &s.in.Libc
	if len(l.Found) == 0 && e.Engine != ptrace.EngineSyscall {
		e.State, e.Why = report.Partly, "samples only: no function to stop at"
		if e.Engine == observe.EngineUprobe {
			e.State, e.Why = report.Fails, "no function to look at"
		}
		return
	}
	at := strings.Join(l.Found, " and ")
	switch e.Engine {
	case ptrace.EngineHWBP:
		e.Why = "the kernel grants breakpoints at " + at
		if err := ptrace.TryHardware(s.t.PID, ptrace.Breakpoint{Addr: l.At, Name: l.Found[0]}); err != nil {
			e.State = report.Fails
			e.Why, e.Remedy = s.explain(e.Engine, err)
		}
	case ptrace.EngineInt3:
		e.Why = "its code can be written at " + at
		if handles(s.status, syscall.SIGTRAP) {
			e.State, e.Why, e.Remedy = report.Fails, "it handles SIGTRAP itself", "take hwbp, which leaves its handler alone"
		}
	case observe.EngineUprobe:
		e.Why = "nothing is stopped; it sees " + at
	case ptrace.EngineSyscall:
		e.Why = "stops at every system call"
	}
}

// handles reports whether a process has a handler for a signal, or ignores it.
func handles(st proc.Status, sig syscall.Signal) bool {
	for _, name := range []string{"SigCgt", "SigIgn"} {
		if mask, ok := st.Caps(name); ok && mask&(1<<(uint(sig)-1)) != 0 {
			return true
		}
	}
	return false
}

// noStop reads PHP's own state: Inspect did, when it knows the version.
func (s *subject) noStop(e *report.EngineState) {
	switch {
	case s.in.Target.PHPVersion != "":
		e.Why = fmt.Sprintf("phpwhy dump --no-stop %d: PHP frames only", s.t.PID)
	case s.denied != nil:
		e.State, e.Why = report.Fails, "not permitted, see access"
	default:
		e.State, e.Why = report.Fails, "see php"
	}
}
