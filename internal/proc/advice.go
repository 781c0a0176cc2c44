package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Access is what decides whether this process may trace another one
// (kernel/ptrace.c, __ptrace_may_access, and what security modules add).
type Access struct {
	Me  int    // effective uid
	Own CapSet // effective capabilities of this process
	// Seccomp is this process's mode.
	Seccomp int
	// Profile is the AppArmor profile or SELinux context of this process, "" for
	// none and for one that forbids nothing.
	Profile string
	// Yama is kernel.yama.ptrace_scope, -1 without yama.
	Yama int
	// Paranoid is kernel.perf_event_paranoid, -1 when it can't be read.
	Paranoid int
	// UserNS: this process is in a user namespace, where its capabilities count
	// for nothing outside.
	UserNS bool

	Theirs    int    // effective uid of the process
	TheirCaps CapSet // its permitted capabilities
	// FileOwner owns its files in /proc: its user, or root when it is not
	// dumpable, as after a change of user. -1 when unknown.
	FileOwner int
}

// AccessTo finds these out about a process. What it can't find out counts as
// no obstacle.
func AccessTo(pid int) Access {
	a := OwnAccess()
	a.Theirs, a.FileOwner = a.Me, -1
	if st, err := ReadStatus(pid); err == nil {
		a.TheirCaps, _ = st.Caps("CapPrm")
		if f := strings.Fields(st["Uid"]); len(f) > 1 {
			if n, err := strconv.Atoi(f[1]); err == nil {
				a.Theirs = n
			}
		}
	}
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/mem", pid), &st) == nil {
		a.FileOwner = int(st.Uid)
	}
	return a
}

// OwnAccess is the part that is about this process and the machine.
func OwnAccess() Access {
	a := Access{Me: os.Geteuid(), Yama: YamaScope(), Paranoid: -1, FileOwner: -1}
	if n, ok := PerfParanoid(); ok {
		a.Paranoid = n
	}
	ns, err := os.Readlink("/proc/self/ns/user")
	a.UserNS = err == nil && ns != initialUserNS
	a.Profile = confinement()
	if st, err := OwnStatus(); err == nil {
		a.Own, _ = st.Caps("CapEff")
		a.Seccomp, _ = st.Number("Seccomp")
	}
	return a
}

// confinement reads what a security module calls this process.
func confinement() string {
	b, err := os.ReadFile("/proc/self/attr/current")
	if err != nil {
		return "" // no such module
	}
	s := strings.TrimRight(string(b), "\x00\n")
	if strings.HasPrefix(s, "unconfined") || strings.Contains(s, ":unconfined_t") {
		return ""
	}
	return s
}

// initialUserNS never changes (include/linux/proc_ns.h, PROC_USER_INIT_INO).
const initialUserNS = "user:[4026531837]"

// YamaScope is kernel.yama.ptrace_scope, -1 when there is no yama.
func YamaScope() int {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return n
}

// Advice says why tracing is not permitted and what to change, the likeliest
// first.
func (a Access) Advice() string {
	ptrace := a.Own.Has(CapSysPtrace)
	others := a.FileOwner >= 0 && a.FileOwner != a.Me
	switch {
	case a.Yama == 3:
		return "yama ptrace_scope=3 forbids tracing until the next boot"
	case ptrace && others && !a.Own.Has(CapDACOverride):
		return fmt.Sprintf("its /proc files belong to uid %d and this runs as uid %d, without CAP_DAC_OVERRIDE; add that capability or run as uid %d",
			a.FileOwner, a.Me, a.FileOwner)
	case ptrace:
		return a.policy()
	case a.Me == 0:
		return "root lacks CAP_SYS_PTRACE here; in a container add the capability SYS_PTRACE (docker run --cap-add SYS_PTRACE)"
	case a.Theirs != a.Me:
		return fmt.Sprintf("it runs as uid %d and this as uid %d; run as root or as that user, or give phpwhy CAP_SYS_PTRACE", a.Theirs, a.Me)
	case a.FileOwner == 0 && a.Me != 0:
		return "it is not dumpable, as a php-fpm worker without process.dumpable = yes; run as root or with CAP_SYS_PTRACE"
	case a.TheirCaps&^a.Own != 0:
		return fmt.Sprintf("it has %s, which this lacks; run as root or with CAP_SYS_PTRACE", strings.Join((a.TheirCaps&^a.Own).Names(), ", "))
	case a.Yama == 1 || a.Yama == 2:
		return fmt.Sprintf("yama ptrace_scope=%d; run as root or with CAP_SYS_PTRACE, or set it to 0: sysctl kernel.yama.ptrace_scope=0", a.Yama)
	}
	return a.policy()
}

// policy is what is left when identity and capabilities are in order.
func (a Access) policy() string {
	if a.Seccomp == SeccompFilter {
		return "this process has a seccomp filter, which may forbid ptrace; run it without (docker run --security-opt seccomp=unconfined)"
	}
	if a.UserNS {
		return "phpwhy runs in a user namespace, and the process may be outside of it; run phpwhy there, as root"
	}
	if a.Profile != "" {
		return fmt.Sprintf("this process is confined as %q, which may forbid it; run it unconfined (docker run --security-opt apparmor=unconfined) or outside of the container", a.Profile)
	}
	return "a security module such as AppArmor or SELinux forbids it: see the kernel's log"
}

// Perfmon reports whether perf events need not ask for perf_event_paranoid.
func (a Access) Perfmon() bool {
	return !a.UserNS && (a.Own.Has(CapPerfmon) || a.Own.Has(CapSysAdmin))
}

// PerfAdvice says why perf_event_open is not permitted for a breakpoint, and
// what to change.
func (a Access) PerfAdvice() (why, remedy string) {
	filter := a.Seccomp == SeccompFilter
	switch {
	case !a.Perfmon() && a.Paranoid > FreeParanoid:
		why = fmt.Sprintf("perf_event_paranoid is %d", a.Paranoid)
		remedy = "run as root or with CAP_PERFMON (docker run --cap-add PERFMON), or: sysctl kernel.perf_event_paranoid=2"
		if filter {
			remedy += "; the seccomp filter must allow perf_event_open, too"
		}
	case filter:
		why, remedy = "a seccomp filter forbids perf_event_open", "docker run --cap-add PERFMON, or --security-opt seccomp=unconfined"
	default:
		why, remedy = "a security module such as AppArmor or SELinux forbids perf_event_open", "see the kernel's log"
	}
	return why, remedy
}
