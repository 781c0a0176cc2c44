package proc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Capability is one of capabilities(7).
type Capability uint8

// The capabilities that phpwhy has a use for.
const (
	CapDACOverride       Capability = unix.CAP_DAC_OVERRIDE
	CapDACReadSearch     Capability = unix.CAP_DAC_READ_SEARCH
	CapKill              Capability = unix.CAP_KILL
	CapIPCLock           Capability = unix.CAP_IPC_LOCK
	CapSysPtrace         Capability = unix.CAP_SYS_PTRACE
	CapSysAdmin          Capability = unix.CAP_SYS_ADMIN
	CapSysNice           Capability = unix.CAP_SYS_NICE
	CapPerfmon           Capability = unix.CAP_PERFMON
	CapBPF               Capability = unix.CAP_BPF
	CapCheckpointRestore Capability = unix.CAP_CHECKPOINT_RESTORE
)

// capNames are the names in the order of their numbers (uapi/linux/capability.h).
var capNames = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
	NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
	SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
	WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

func (c Capability) String() string {
	if int(c) < len(capNames) {
		return "CAP_" + capNames[c]
	}
	return fmt.Sprintf("capability %d", uint8(c))
}

// CapSet is a set of capabilities, one bit each.
type CapSet uint64

// Caps makes a set.
func Caps(cs ...Capability) CapSet {
	var s CapSet
	for _, c := range cs {
		s |= 1 << c
	}
	return s
}

// Has reports whether c is in the set.
func (s CapSet) Has(c Capability) bool { return s&(1<<c) != 0 }

// Names are those of the set, in the kernel's order.
func (s CapSet) Names() []string {
	out := []string{}
	for c := range Capability(64) {
		if s.Has(c) {
			out = append(out, c.String())
		}
	}
	return out
}

// Tracing are the capabilities that observing another process can need:
//
//   - CAP_SYS_PTRACE to trace it and to read its /proc files;
//   - CAP_DAC_OVERRIDE to open its /proc/PID/mem for writing, a file of mode
//     0600 that belongs to its user;
//   - CAP_DAC_READ_SEARCH, where there is not that one, to read its program and
//     libraries;
//   - CAP_CHECKPOINT_RESTORE to open them through /proc/PID/map_files, also
//     when they were deleted;
//   - CAP_PERFMON for hardware breakpoints, only where perf_event_paranoid is
//     above 2;
//   - CAP_SYS_NICE so that the tracing thread goes first while a worker stands
//     still.
//
// Kernels before 5.9 have CAP_SYS_ADMIN where later ones have the finer ones.
func Tracing() CapSet {
	s := Caps(CapSysPtrace, CapDACOverride, CapDACReadSearch, CapCheckpointRestore, CapSysNice)
	if n, ok := PerfParanoid(); !ok || n > FreeParanoid {
		s |= Caps(CapPerfmon)
	}
	if last, ok := lastCap(); ok && last < CapCheckpointRestore {
		s |= Caps(CapSysAdmin)
	}
	return s
}

// Uprobes are those that uprobe events need besides Tracing: CAP_SYS_ADMIN,
// which Linux 6.18 insists on and where earlier ones are content with
// CAP_PERFMON; CAP_BPF for a program that copies; CAP_IPC_LOCK for buffers beyond
// perf_event_mlock_kb.
func Uprobes() CapSet { return Caps(CapSysAdmin, CapPerfmon, CapBPF, CapIPCLock) }

// FreeParanoid is the perf_event_paranoid up to which user code may be watched
// without capabilities. Distributions have added 3 and 4.
const FreeParanoid = 2

// PerfParanoid is kernel.perf_event_paranoid; false when it can't be read.
func PerfParanoid() (int, bool) {
	b, err := os.ReadFile("/proc/sys/kernel/perf_event_paranoid")
	if err != nil {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	return n, err == nil
}

// lastCap is the last capability that the kernel knows.
func lastCap() (Capability, bool) {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 6)
	return Capability(n), err == nil
}

// The reasons why Drop keeps what there is.
var (
	// ErrNeedsAll: without CAP_SYS_PTRACE a process may trace only those whose
	// capabilities it has itself (security/commoncap.c,
	// cap_ptrace_access_check), so giving up some could make the worker
	// untraceable.
	ErrNeedsAll = errors.New("without CAP_SYS_PTRACE the kernel compares this process's capabilities with the worker's, so all are kept")
	// ErrCgo: threads that Go did not start can't be told to give up theirs.
	ErrCgo = errors.New("this build uses cgo, which keeps Go from changing all threads; build it with CGO_ENABLED=0")
)

// Drop gives up all capabilities but keep, in every thread and for good: no
// program that this process runs from now on gets more (no_new_privs). What
// was started before is not touched. Calling it again can only drop more.
func Drop(keep CapSet) error {
	st, err := OwnStatus()
	if err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	permitted, _ := st.Caps("CapPrm")
	effective, _ := st.Caps("CapEff")
	inheritable, _ := st.Caps("CapInh")
	if permitted != 0 && !effective.Has(CapSysPtrace) {
		return ErrNeedsAll
	}
	if err := noNewPrivs(); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if permitted&^keep == 0 && inheritable&^keep == 0 {
		return nil
	}
	// The kernel takes from the ambient set what leaves one of the others.
	if err := setCaps(effective&keep, permitted&keep, inheritable&keep); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// allThreads turns what AllThreadsSyscall returns into an error.
func allThreads(e unix.Errno) error {
	switch e {
	case 0:
		return nil
	case unix.ENOTSUP:
		return ErrCgo
	}
	return e
}
