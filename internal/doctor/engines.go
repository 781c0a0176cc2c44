package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/perf"
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
	if name == observe.EngineUprobe {
		n, err := tryUprobe(ctx, sub)
		return f.judge(name, fmt.Sprintf("saw %d calls in a process of our own", n), err)
	}
	n, err := sub.Try(ctx, name)
	return f.judge(name, fmt.Sprintf("stopped a process of our own %d times", n), err)
}

// tryUprobe has the kernel copy the subject's calls. Nothing is stopped.
func tryUprobe(ctx context.Context, sub *ptrace.Subject) (int, error) {
	p, err := proc.Open(sub.PID)
	if err != nil {
		return 0, err
	}
	maps, err := p.Mappings()
	if err != nil {
		return 0, err
	}
	m := maps.Find(sub.At)
	if m == nil {
		return 0, &remote.ReadError{At: sub.At, Err: remote.ErrUnmapped}
	}
	exe, err := os.Open(fmt.Sprintf("/proc/%d/exe", sub.PID))
	if err != nil {
		return 0, err
	}
	defer exe.Close()
	return perf.Try(ctx, sub.PID, perf.Point{File: exe, Offset: perf.OffsetIn(m, sub.At), Name: "a function of our own"}, sub.At)
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
	case refused && name == observe.EngineUprobe:
		return f.uprobeRefused(err)
	case errors.Is(err, proc.ErrPermission):
		if errors.As(err, &pe) && pe.Advice != "" {
			return "ptrace is refused, even on a process of our own", pe.Advice
		}
		return "ptrace is refused, even on a process of our own", f.Advice()
	case errors.Is(err, perf.ErrNoUprobes) && !errors.Is(err, syscall.ENOSYS):
		return "the kernel offers no uprobe events", "needs Linux 5.8 with CONFIG_UPROBE_EVENTS and CONFIG_BPF_EVENTS, and /sys mounted"
	case errors.Is(err, syscall.ENOSYS):
		if f.Seccomp == proc.SeccompFilter {
			return "a seccomp filter forbids it (ENOSYS)", seccompRemedy
		}
		return "the kernel does not have the system call", ""
	case refused && name == ptrace.EngineHWBP:
		return f.PerfAdvice()
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

// uprobeRefused names what refuses perf_event_open or bpf: the capability that
// is missing, the filter, the module. Linux 6.18 asks for CAP_SYS_ADMIN whatever
// perf_event_paranoid is.
func (f *facts) uprobeRefused(err error) (why, remedy string) {
	switch {
	case f.UserNS || !f.Own.Has(proc.CapSysAdmin):
		return "uprobes need CAP_SYS_ADMIN (CAP_PERFMON and CAP_BPF on older kernels)", "give phpwhy CAP_SYS_ADMIN, outside of user namespaces"
	case f.Seccomp == proc.SeccompFilter:
		return "a seccomp filter forbids perf_event_open or bpf", "docker run --cap-add SYS_ADMIN, or --security-opt seccomp=unconfined"
	case f.host.Lockdown == "confidentiality":
		return "kernel lockdown keeps programs from reading memory", "boot with lockdown=integrity; hwbp and int3 are not affected"
	}
	return "refused: " + err.Error(), "see the kernel's log: a security module such as AppArmor or SELinux may forbid it"
}
