package ptrace

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/proc"
)

// The reasons why a process can't be traced or stopped at a place. A
// *proc.Error wraps one of them, or one of package proc's.
var (
	ErrTraced      = errors.New("it is already being traced")
	ErrUnsupported = errors.New("not supported here")
	ErrTooMany     = errors.New("too many breakpoints")
	ErrNoSyscall   = errors.New("no code to make system calls with was found in it")
	ErrNoRoom      = errors.New("its stack has no room")
	ErrNotStopping = errors.New("a thread did not stop in time")
	ErrThreads     = errors.New("it keeps starting threads")
	ErrPanic       = errors.New("the handler panicked")
)

// attachError turns the errno of PTRACE_SEIZE into advice.
func attachError(pid int, err error) error {
	e := &proc.Error{PID: pid, What: "attach to process", Err: err}
	switch {
	case errors.Is(err, unix.ESRCH):
		e.Err = proc.ErrNoProcess
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		if t := statusField(pid, "TracerPid"); t != "" && t != "0" {
			e.Err = fmt.Errorf("%w by %s", ErrTraced, describe(t))
			e.Advice = "end that tracer first"
			break
		}
		e.Err = fmt.Errorf("%w: %w", proc.ErrPermission, err)
		e.Advice = proc.AccessTo(pid).Advice()
	}
	return e
}

// notStopping says once, with advice, what each of an observation's steps says of a
// process that does not stop.
func notStopping(pid int, err error) error {
	if !errors.Is(err, ErrNotStopping) || errors.Is(err, ErrPanic) {
		return err
	}
	e := &proc.Error{PID: pid, What: "stop process", Err: ErrNotStopping, Advice: "phpwhy dump --no-stop reads its PHP frames as it is"}
	switch st := statusField(pid, "State"); {
	case strings.HasPrefix(st, "D"):
		e.Advice = "it is in a system call that can't be interrupted; " + e.Advice
	case strings.HasPrefix(st, "R"):
		e.Advice = "it hardly gets a processor; " + e.Advice
	}
	return e
}

func describe(pid string) string {
	comm, err := os.ReadFile("/proc/" + pid + "/comm")
	if err != nil {
		return "process " + pid
	}
	return fmt.Sprintf("%s (%q)", pid, strings.TrimSpace(string(comm)))
}

// statusField reads one line of /proc/PID/status, empty when it can't.
func statusField(pid int, name string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// placed refuses breakpoints that are no place in the code.
func placed(bps []Breakpoint) error {
	for _, bp := range bps {
		if bp.Addr == 0 {
			return fmt.Errorf("%s: %w: the program has no symbol for it", bp.Name, ErrUnsupported)
		}
	}
	return nil
}

// gone reports whether err says that the thread no longer exists, or no longer
// stands still because it was killed.
func gone(err error) bool { return errors.Is(err, unix.ESRCH) }
