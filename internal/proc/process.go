// Package proc reads what /proc says about a process: its mappings, files,
// memory, CPU time and identity.
//
// Hazard: a pid is reused and a process changes while it is read. Process
// remembers the start time it saw first; Alive compares it.
//
// Non-goal: it neither stops nor changes the process.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// The reasons why a process can't be looked at. Error wraps one of them.
var (
	ErrNoProcess    = errors.New("no such process")
	ErrZombie       = errors.New("it is a zombie: it has ended and waits for its parent")
	ErrKernelThread = errors.New("it is a kernel thread and runs no PHP")
	ErrPermission   = errors.New("not permitted")
	ErrReplaced     = errors.New("it has executed another program meanwhile")
)

// Error says what could not be done with which process, and what to do.
type Error struct {
	PID    int
	What   string // "read the mappings", "attach to process", …
	Err    error  // wraps one of the sentinels where one fits
	Advice string // may be empty
}

func (e *Error) Error() string {
	of := " of "
	if strings.HasSuffix(e.What, "process") {
		of = " "
	}
	s := fmt.Sprintf("cannot %s%s%d: %v", e.What, of, e.PID, e.Err)
	if e.Advice != "" {
		s += " (" + e.Advice + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// clockTick is USER_HZ, which Linux fixes at 100 for every architecture
// that Go runs on (include/asm-generic/param.h).
const clockTick = 100

// Process is one process, identified by pid and start time.
type Process struct {
	PID       int
	StartTime uint64 // clock ticks after boot
	fs        procfs.Proc
}

// Open looks the process up and refuses what can't be a PHP worker.
func Open(pid int) (*Process, error) {
	fail := func(err error, advice string) (*Process, error) {
		return nil, &Error{PID: pid, What: "look at process", Err: err, Advice: advice}
	}
	if pid <= 0 {
		return fail(ErrNoProcess, "a pid is a positive number")
	}
	p, err := procfs.NewProc(pid)
	if err != nil {
		// A signal that is none tells processes that /proc hides from none.
		if errors.Is(unix.Kill(pid, 0), unix.EPERM) {
			return fail(ErrPermission, "/proc hides other users' processes (mounted with hidepid); run as root or with CAP_SYS_PTRACE")
		}
		return fail(ErrNoProcess, noProcessAdvice())
	}
	st, err := p.Stat()
	if err != nil {
		return fail(classify(err), "")
	}
	switch {
	case st.State == "Z" || st.State == "X":
		return fail(ErrZombie, fmt.Sprintf("its parent is %d", st.PPID))
	case st.Flags&pfKThread != 0:
		return fail(ErrKernelThread, st.Comm)
	}
	tgid, err := threadGroup(pid)
	if err != nil {
		return fail(classify(err), "")
	}
	if tgid != pid {
		return fail(ErrNoProcess, fmt.Sprintf("%d is a thread; its process is %d", pid, tgid))
	}
	return &Process{PID: pid, StartTime: st.Starttime, fs: p}, nil
}

// initialPIDNS never changes (include/linux/proc_ns.h, PROC_PID_INIT_INO).
const initialPIDNS = "pid:[4026531836]"

// InPIDNamespace reports whether this process sees a container's pids only.
func InPIDNamespace() bool {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && ns != initialPIDNS
}

// noProcessAdvice reminds of what makes a pid mean nothing here.
func noProcessAdvice() string {
	if InPIDNamespace() {
		return "phpwhy runs in a container, where pids are the container's own"
	}
	return "phpwhy collect finds the PHP processes there are"
}

// pfKThread marks kernel threads in /proc/PID/stat's flags (include/linux/sched.h).
const pfKThread = 0x00200000

func threadGroup(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, errors.New("no Tgid in /proc/PID/status")
}

func classify(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		return fmt.Errorf("%w (it may just have ended)", ErrNoProcess)
	case errors.Is(err, fs.ErrPermission):
		return ErrPermission
	}
	return err
}

func (p *Process) fail(what string, err error) error {
	c := classify(err)
	advice := ""
	if errors.Is(c, ErrPermission) {
		advice = AccessTo(p.PID).Advice()
	}
	return &Error{PID: p.PID, What: what, Err: c, Advice: advice}
}

func (p *Process) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(p.PID), name)
}

// Program tells one program that the process runs from the next: it changes
// when the process calls exec, even of the same file, because the kernel then
// chooses new addresses. It is the auxiliary vector, nil when it can't be read.
func (p *Process) Program() []byte {
	b, err := os.ReadFile(p.path("auxv"))
	if err != nil {
		return nil
	}
	return b
}

// Alive reports whether the same process still runs (zombies don't).
func (p *Process) Alive() bool {
	st, err := p.fs.Stat()
	return err == nil && st.Starttime == p.StartTime && st.State != "Z" && st.State != "X"
}

// State is the one-letter state of the main thread, as ps shows it.
func (p *Process) State() (string, error) {
	st, err := p.fs.Stat()
	if err != nil {
		return "", p.fail("read the state", err)
	}
	return st.State, nil
}

// Tracer is the pid of the process that traces this one, 0 when none does.
func (p *Process) Tracer() (int, error) {
	b, err := os.ReadFile(p.path("status"))
	if err != nil {
		return 0, p.fail("read the tracer", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "TracerPid:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(v))
			if err != nil {
				return 0, p.fail("read the tracer", err)
			}
			return n, nil
		}
	}
	return 0, p.fail("read the tracer", errors.New("no TracerPid in its status"))
}

// BytesRead is what the process has read from files and pipes so far, whether
// or not a disk was asked. What is received with recv(2) does not count.
func (p *Process) BytesRead() (uint64, error) {
	io, err := p.fs.IO()
	if err != nil {
		return 0, p.fail("read the I/O counters", err)
	}
	return io.RChar, nil
}

// RSS is how much of its memory the process has in RAM, in bytes: its own and what
// it shares with others.
func (p *Process) RSS() (uint64, error) {
	b, err := os.ReadFile(p.path("statm"))
	if err != nil {
		return 0, p.fail("read the memory", err)
	}
	// In pages: size, resident, shared, … (proc_pid_statm(5)).
	var size, resident uint64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		return 0, p.fail("read the memory", err)
	}
	return resident * uint64(os.Getpagesize()), nil
}

// Wchan is the function of the kernel that a thread waits in. It is "" for one that
// waits for nothing, and also where it may not be known: the kernel then says 0 for
// both (proc_pid_wchan in fs/proc/base.c). The compiler's names for parts and copies
// of a function are cut: those differ from one build of the kernel to the next.
// Of a sleep that a tracer has interrupted the kernel knows the way in alone, which
// is the same for all calls and is "", too.
func (p *Process) Wchan(tid int) string {
	b, err := os.ReadFile(p.path(fmt.Sprintf("task/%d/wchan", tid)))
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(string(bytes.TrimSpace(b)), ".") // poll_schedule_timeout.constprop.0
	if wayIn[name] {
		return ""
	}
	return name
}

// wayIn are wchan's answers that tell nothing: none, and the functions that any
// system call goes through (arch/x86/entry, arch/arm64/kernel/syscall.c).
var wayIn = map[string]bool{
	"0": true, "do_syscall_64": true, "x64_sys_call": true, "entry_SYSCALL_64_after_hwframe": true,
	"invoke_syscall": true, "el0_svc_common": true, "do_el0_svc": true, "el0_svc": true,
}

// Cmdline is the command line with its arguments joined by spaces. php-fpm
// overwrites it with its process title.
func (p *Process) Cmdline() string {
	b, err := os.ReadFile(p.path("cmdline"))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(bytes.ReplaceAll(bytes.TrimRight(b, "\x00"), []byte{0}, []byte{' '})))
}

// Exe is the path of the program as the process sees it.
func (p *Process) Exe() (string, error) {
	s, err := os.Readlink(p.path("exe"))
	if err != nil {
		return "", p.fail("read the program's path", err)
	}
	return strings.TrimSuffix(s, " (deleted)"), nil
}

// CPUTime is the time that all threads alive now have spent on a processor
// (on), and the time that they were ready to but had to wait for one (queued).
func (p *Process) CPUTime() (on, queued time.Duration, err error) {
	tids, err := p.Threads()
	if err != nil {
		return 0, 0, err
	}
	for _, tid := range tids {
		// Nanoseconds, where /proc/PID/stat has steps of 10 ms: an
		// observation may last less than that.
		b, err := os.ReadFile(p.path(fmt.Sprintf("task/%d/schedstat", tid)))
		if err != nil {
			if tid == p.PID {
				return 0, 0, p.fail("read the CPU time", err)
			}
			continue // the thread has just ended
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(b), &ran, &waited); err != nil {
			return 0, 0, p.fail("read the CPU time", err)
		}
		on += time.Duration(ran)
		queued += time.Duration(waited)
	}
	return on, queued, nil
}

// Age is how long the process has lived.
func (p *Process) Age() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, p.fail("read the age", err)
	}
	return time.Duration(ts.Nano()) - time.Duration(p.StartTime)*(time.Second/clockTick), nil
}

// Threads lists the thread ids, the main thread's among them.
func (p *Process) Threads() ([]int, error) {
	ents, err := os.ReadDir(p.path("task"))
	if err != nil {
		return nil, p.fail("list the threads", err)
	}
	tids := make([]int, 0, len(ents))
	for _, e := range ents {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, n)
		}
	}
	return tids, nil
}

// ThreadsInside gives the threads' ids by those that they have in the process's
// own pid namespace, which are the ones in its memory. In a container they are
// other numbers than here.
func (p *Process) ThreadsInside() (map[int]int, error) {
	tids, err := p.Threads()
	if err != nil {
		return nil, err
	}
	out := make(map[int]int, len(tids))
	for _, tid := range tids {
		b, err := os.ReadFile(p.path(fmt.Sprintf("task/%d/status", tid)))
		if err != nil {
			continue // it has just ended
		}
		if own, ok := innermost(string(b)); ok {
			out[own] = tid
		}
	}
	return out, nil
}

// Inside is the pid that a process has in its own pid namespace: the one that it
// knows itself by.
func Inside(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, &Error{PID: pid, What: "read the status", Err: classify(err)}
	}
	own, ok := innermost(string(b))
	if !ok { // a kernel without pid namespaces
		own = pid
	}
	return own, nil
}

// SameClock reports whether CLOCK_MONOTONIC is the same for a process as for
// this one: a time namespace may have moved it. Kernels before 5.6 have none.
func SameClock(pid int) bool {
	own, err := os.Readlink("/proc/self/ns/time")
	if err != nil {
		return true
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", pid))
	return err == nil && own == theirs
}

// innermost is the last number of NSpid in /proc/PID/status.
func innermost(status string) (int, bool) {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(v)
			if len(f) == 0 {
				return 0, false
			}
			n, err := strconv.Atoi(f[len(f)-1])
			return n, err == nil
		}
	}
	return 0, false
}

// Mappings reads /proc/PID/maps.
func (p *Process) Mappings() (remote.Mappings, error) {
	maps, err := p.fs.ProcMaps()
	if err != nil {
		return nil, p.fail("read the mappings", err)
	}
	if len(maps) == 0 {
		return nil, &Error{PID: p.PID, What: "read the mappings", Err: ErrNoProcess, Advice: "it has no memory: it is ending"}
	}
	out := make(remote.Mappings, 0, len(maps))
	for _, m := range maps {
		path, deleted := strings.CutSuffix(m.Pathname, " (deleted)")
		out = append(out, remote.Mapping{
			Start: remote.Addr(m.StartAddr), End: remote.Addr(m.EndAddr),
			Offset: uint64(m.Offset), Dev: m.Dev, Inode: m.Inode,
			Read: m.Perms.Read, Write: m.Perms.Write, Exec: m.Perms.Execute, Shared: m.Perms.Shared,
			Path: path, Deleted: deleted,
		})
	}
	return out, nil
}
