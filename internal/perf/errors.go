package perf

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/proc"
)

// The reasons why uprobes don't work. An *Error wraps one of them, or
// proc.ErrPermission.
var (
	ErrNoUprobes = errors.New("this kernel has no uprobe events")
	ErrNoProgram = errors.New("the kernel accepts no program that copies PHP's stack")
)

// errLocked is about the memory of buffers, which stays in RAM.
var errLocked = errors.New("locked memory")

// Error says what is not possible and what to do about it.
type Error struct {
	What   string
	Err    error
	Advice string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("cannot %s: %v", e.What, e.Err)
	if e.Advice != "" {
		s += " (" + e.Advice + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// refused explains an errno of perf_event_open or bpf.
func refused(what string, err error) error {
	e := &Error{What: what, Err: err}
	switch {
	case errors.Is(err, errLocked) && errors.Is(err, unix.EPERM):
		e.Err = fmt.Errorf("%w: %w", proc.ErrPermission, err)
		e.Advice = "needs CAP_IPC_LOCK, or a higher ulimit -l"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		e.Err = fmt.Errorf("%w: %w", proc.ErrPermission, err)
		e.Advice = "needs CAP_SYS_ADMIN outside of user namespaces; a container's seccomp profile or kernel lockdown may forbid it; take --engine hwbp or int3"
	case errors.Is(err, unix.ESRCH):
		e.Err = proc.ErrNoProcess
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		e.Err = fmt.Errorf("%w: %w", ErrNoUprobes, err)
		e.Advice = "take --engine hwbp or int3"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		e.Advice = "raise the limit of open files"
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EAGAIN):
		e.Advice = "raise the limit of locked memory (ulimit -l)"
	}
	return e
}
