package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// tryEngines tries each on a process of our own.
func (f *facts) tryEngines(ctx context.Context) []report.EngineState {
	out := make([]report.EngineState, 0, len(engines))
	sub, err := ptrace.StartSubject()
	for _, name := range engines {
		if err != nil {
			out = append(out, report.EngineState{Engine: name, State: report.Fails, Why: "not tried: " + err.Error()})
			continue
		}
		out = append(out, f.tryOne(ctx, sub, name))
	}
	if err == nil {
		_ = sub.Close() // it has served
	}
	return out
}

func (f *facts) tryOne(ctx context.Context, sub *ptrace.Subject, name string) report.EngineState {
	if name == NoStop {
		return f.judge(name, "", tryRead(sub))
	}
	n, err := sub.Try(ctx, name)
	done := fmt.Sprintf("stopped a process of our own %d times", n)
	if name == ptrace.EngineUprobe {
		done = fmt.Sprintf("saw %d calls in a process of our own", n)
	}
	return f.judge(name, done, err)
}

// tryRead reads the subject's code while it runs.
func tryRead(sub *ptrace.Subject) error {
	p, err := proc.Open(sub.PID)
	if err != nil {
		return err
	}
	m, err := p.Memory()
	if err != nil {
		return err
	}
	defer m.Close()
	var b [8]byte
	return remote.ReadFull(m, b[:], sub.At)
}

// judge turns the outcome of a trial into a row.
func (f *facts) judge(name, done string, err error) report.EngineState {
	e := report.EngineState{Engine: name, State: report.Works, Why: done}
	if name == NoStop {
		e.Why = "dump --no-stop: memory can be read"
	}
	if err != nil {
		e.State = report.Fails
		e.Why, e.Remedy = f.explain(name, err)
		return e
	}
	limit, remedy := f.reach()
	if limit != "" {
		e.State, e.Why, e.Remedy = report.Partly, e.Why+"; "+limit, remedy
	}
	return e
}

// reach says which processes are out of reach although the engine works.
func (f *facts) reach() (limit, remedy string) {
	if f.Own.Has(proc.CapSysPtrace) {
		if f.UserNS {
			return "other processes only in this user namespace", "run as root outside of it to reach all"
		}
		return "", ""
	}
	if f.Yama == 1 {
		return "only commands it starts (attach -- CMD): yama ptrace_scope=1",
			"run as root or with CAP_SYS_PTRACE, or: sysctl kernel.yama.ptrace_scope=0"
	}
	limit = fmt.Sprintf("other processes only if they run as uid %d", f.Me)
	if f.Me == 0 {
		limit += " and have no more capabilities" // they may run in another container
	}
	return limit, "run with CAP_SYS_PTRACE to reach all"
}

// explain says why an engine was refused and what to change.
func (f *facts) explain(name string, err error) (why, remedy string) {
	var pe *proc.Error
	refused := errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES)
	switch {
	case errors.Is(err, proc.ErrPermission):
		if errors.As(err, &pe) && pe.Advice != "" {
			return "ptrace is refused, even on a process of our own", pe.Advice
		}
		return "ptrace is refused, even on a process of our own", f.Advice()
	case name == ptrace.EngineUprobe && errors.Is(err, fs.ErrNotExist):
		return "the kernel offers no uprobe events", "needs Linux 4.17 with CONFIG_UPROBE_EVENTS, and /sys mounted"
	case errors.Is(err, syscall.ENOSYS):
		if f.Seccomp == proc.SeccompFilter {
			return "a seccomp filter forbids it (ENOSYS)", seccompRemedy
		}
		return "the kernel does not have the system call", ""
	case refused && (name == ptrace.EngineHWBP || name == ptrace.EngineUprobe):
		return f.perfRefused(name)
	case errors.Is(err, ptrace.ErrTooMany):
		return "all debug registers are in use", "end the other debugger or perf session"
	case errors.Is(err, ptrace.ErrUnsupported) && f.olderThan(sigtrapMajor, sigtrapMinor):
		return fmt.Sprintf("Linux %d.%d has no breakpoints that raise SIGTRAP", f.major, f.minor), "needs Linux 5.13; int3 serves as well"
	case errors.Is(err, ptrace.ErrUnsupported) && name == ptrace.EngineHWBP:
		return "no debug registers: " + err.Error(), "a virtual machine must pass them on; int3 serves as well"
	case errors.Is(err, ptrace.ErrNotStopping):
		return "could be set, but nothing ever stopped at it", ""
	}
	return err.Error(), ""
}

const seccompRemedy = "docker run --cap-add PERFMON --cap-add SYS_PTRACE, or --security-opt seccomp=unconfined"

// perfRefused names what refuses perf_event_open: the capability that is
// missing, the setting, the filter.
func (f *facts) perfRefused(name string) (why, remedy string) {
	if name == ptrace.EngineUprobe && (f.UserNS || !f.Own.Has(proc.CapSysAdmin)) {
		return "uprobes need CAP_SYS_ADMIN (CAP_PERFMON on older kernels)", "give phpwhy CAP_SYS_ADMIN, outside of user namespaces"
	}
	return f.PerfAdvice()
}
