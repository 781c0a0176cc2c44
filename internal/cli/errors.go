package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string {
	return e.err.Error() + " (see phpwhy --help)"
}

func (e *usageError) Unwrap() error { return e.err }

// dataError is a file that can't be read as what it should be. The command line
// makes sense.
type dataError struct{ err error }

func (e *dataError) Error() string { return e.err.Error() }
func (e *dataError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// exitCode maps an error to the contract's exit codes.
func exitCode(err error) int {
	var usage *usageError
	var data *dataError
	var unsupported *zend.UnsupportedError
	var failed *checkError
	var start *exec.Error // of a command that is no program
	switch {
	case errors.As(err, &failed):
		return failed.code
	case errors.As(err, &usage), errors.As(err, &data), errors.As(err, &start), fullDisk(err), errors.Is(err, fs.ErrNotExist) && !errors.Is(err, proc.ErrNoProcess):
		return exitUsage
	case errors.Is(err, proc.ErrPermission), errors.Is(err, ptrace.ErrTraced), errors.Is(err, ptrace.ErrUnsupported),
		errors.Is(err, perf.ErrNoUprobes), errors.Is(err, perf.ErrArch), errors.Is(err, perf.ErrNoProgram):
		return exitForbidden
	case errors.Is(err, proc.ErrNoProcess), errors.Is(err, proc.ErrZombie), errors.Is(err, proc.ErrKernelThread),
		errors.Is(err, zend.ErrNotPHP), errors.Is(err, zend.ErrNoSymbols), errors.Is(err, zend.ErrNoVersion), errors.Is(err, zend.ErrLayout),
		errors.As(err, &unsupported), errors.Is(err, observe.ErrNoBreakpoint), errors.Is(err, context.Canceled):
		return exitTarget
	}
	// What is left went wrong between us and the target.
	return exitTarget
}

// fullDisk reports whether a file can't take more: its disk, a quota or a limit is at its end.
func fullDisk(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// checkError is a check that failed or found nothing to check; its result has
// been printed.
type checkError struct {
	code int
	msg  string
}

func (e *checkError) Error() string { return e.msg }

// noArgs refuses arguments as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageErrorf("%s takes no arguments, got %q", cmd.Name(), args[0])
	}
	return nil
}

// silentError has been printed already and only carries its exit code.
type silentError struct{ err error }

func (e *silentError) Error() string { return e.err.Error() }
func (e *silentError) Unwrap() error { return e.err }
