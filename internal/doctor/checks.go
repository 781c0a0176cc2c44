package doctor

import (
	"fmt"
	"strings"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/report"
)

// sigtrapMajor and sigtrapMinor name the first kernel with breakpoints that raise SIGTRAP.
const sigtrapMajor, sigtrapMinor = 5, 13

func (f *facts) olderThan(major, minor int) bool {
	return f.major > 0 && (f.major < major || f.major == major && f.minor < minor)
}

// checks are those of the host. A setting that is in nobody's way is left out.
func (f *facts) checks(kept error) []report.Check {
	cs := []report.Check{f.capabilities(), privileges(kept)}
	if f.olderThan(sigtrapMajor, sigtrapMinor) {
		cs = append(cs, report.Check{Name: "kernel", State: report.Note,
			Text: fmt.Sprintf("%s is older than 5.13, which brought the breakpoints of engine hwbp", f.host.Kernel)})
	}
	cs = append(cs, f.yama(), f.paranoid(), f.seccomp())
	if !f.mapFiles {
		cs = append(cs, report.Check{Name: "map_files", State: report.Note,
			Text:   "a worker's files are opened by their path: those deleted or replaced by an upgrade can't be read",
			Remedy: "run with CAP_CHECKPOINT_RESTORE, outside of a user namespace"})
	}
	if f.host.HidePID != "" {
		c := report.Check{Name: "hidepid", State: report.Good, Text: "/proc is mounted with hidepid=" + f.host.HidePID}
		if !f.Own.Has(proc.CapSysPtrace) {
			c.State, c.Text = report.Note, c.Text+": other users' processes are hidden"
			c.Remedy = "run as root, or with CAP_SYS_PTRACE"
		}
		cs = append(cs, c)
	}
	if l := f.host.Lockdown; l != "" && l != "none" {
		c := report.Check{Name: "lockdown", State: report.Good, Text: l}
		if l == "confidentiality" {
			c.State, c.Text = report.Note, l+" may keep programs from uprobe events; hwbp and int3 are not affected"
		}
		cs = append(cs, c)
	}
	return cs
}

func (f *facts) capabilities() report.Check {
	c := report.Check{Name: "capabilities", State: report.Good, Text: "all that observing needs"}
	if f.UserNS && f.Own.Has(proc.CapSysPtrace) {
		c.State, c.Text = report.Note, "of a user namespace: they count for processes in it only, and not for perf events and map_files"
		c.Remedy = "to reach others run as root outside of it"
		return c
	}
	missing := (proc.Tracing() &^ proc.Caps(proc.CapSysNice)) &^ f.Own
	if missing == 0 {
		return c
	}
	c.State = report.Note
	have := f.Own & proc.Tracing()
	switch {
	case have == 0:
		c.Text = "none: only processes of the same user, as far as settings allow"
	case !have.Has(proc.CapSysPtrace):
		c.Text = "without CAP_SYS_PTRACE: only processes of the same user that have no more capabilities"
	default:
		c.Text = "without " + strings.Join(missing.Names(), ", ")
		return c
	}
	c.Remedy = "give phpwhy CAP_SYS_PTRACE"
	if f.Me != 0 {
		c.Remedy = "run as root, or " + c.Remedy
	}
	if f.host.Container != "" {
		c.Remedy += " (docker run --cap-add SYS_PTRACE)"
	}
	return c
}

// privileges says whether this process holds more than it needs.
func privileges(kept error) report.Check {
	if kept != nil {
		return report.Check{Name: "privileges", State: report.Note, Text: kept.Error()}
	}
	return report.Check{Name: "privileges", State: report.Good, Text: "other capabilities are given up at the start, no_new_privs is set"}
}

func (f *facts) yama() report.Check {
	c := report.Check{Name: "ptrace_scope", State: report.Good}
	switch {
	case f.Yama < 0:
		c.Text = "no yama: nothing but user and capabilities decides"
		return c
	case f.Yama == 3:
		c.State, c.Text, c.Remedy = report.Fails, "3: nobody may trace", "boot without kernel.yama.ptrace_scope=3; it can't be lowered"
		return c
	}
	c.Text = fmt.Sprint(f.Yama)
	if f.Yama > 0 && !f.Own.Has(proc.CapSysPtrace) {
		c.State = report.Fails
		c.Text += ": only root may trace"
		if f.Yama == 1 {
			c.State, c.Text = report.Note, "1: only commands that phpwhy starts may be traced"
		}
		c.Remedy = "run as root or with CAP_SYS_PTRACE, or: sysctl kernel.yama.ptrace_scope=0"
	}
	return c
}

func (f *facts) paranoid() report.Check {
	c := report.Check{Name: "perf events", State: report.Good}
	if f.Paranoid < 0 && f.host.Paranoid == nil {
		c.State, c.Text = report.Note, "/proc/sys/kernel/perf_event_paranoid can't be read: no perf events here"
		return c
	}
	c.Text = fmt.Sprintf("perf_event_paranoid is %d", f.Paranoid)
	switch {
	case f.Paranoid <= proc.FreeParanoid:
		c.Text += ", which lets hwbp work without capabilities"
	case f.Perfmon():
		c.Text += ", which CAP_PERFMON overrules"
	default:
		c.State, c.Text = report.Note, c.Text+": no breakpoints of hwbp without CAP_PERFMON"
		_, c.Remedy = f.PerfAdvice()
	}
	return c
}

func (f *facts) seccomp() report.Check {
	c := report.Check{Name: "seccomp", State: report.Good, Text: "no filter on phpwhy"}
	if f.Seccomp != proc.SeccompNone {
		c.State, c.Text = report.Note, "phpwhy has a filter, which may refuse ptrace and perf_event_open; what it does shows above"
	}
	return c
}
