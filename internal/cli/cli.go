// Package cli is phpwhy's command line: it parses flags, runs one command and
// turns errors into one line and an exit code.
//
// Contract: stdout carries the result only; progress and errors go to stderr;
// the exit codes never drift.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
)

// The exit codes.
const (
	exitOK        = 0
	exitCheck     = 1 // a check failed
	exitUsage     = 2 // wrong usage or unreadable input
	exitTarget    = 3 // no such pid, not PHP, it exited
	exitNothing   = 3 // rules test: no test was selected
	exitForbidden = 4 // not permitted
)

// streams are where a command reads and writes.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// Main runs phpwhy with args (without the program's name) and returns its exit code.
func Main(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	if ptrace.IsHelper(args) {
		return ptrace.HelperMain(args)
	}
	if perf.IsHelper(args) {
		return perf.HelperMain(args)
	}
	// The thread that has stopped a worker must never wait for its turn behind
	// goroutines that unwind and inflate.
	runtime.GOMAXPROCS(runtime.NumCPU() + 2)
	ctx, stop := signal.NotifyContext(ctx, ending()...)
	defer stop()
	printed := &result{w: out}
	root := newRoot(streams{in, printed, errs})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = printed.failed()
	}
	if err == nil {
		return exitOK
	}
	var silent *silentError
	if !errors.As(err, &silent) {
		fmt.Fprintf(errs, "phpwhy: %s%s\n", oneLine(err), hint(args, err))
	}
	if printed.isCause(err) {
		return exitUsage
	}
	return exitCode(err)
}

// hint says what to do where the error itself does not.
func hint(args []string, err error) string {
	var start *exec.Error
	var path *fs.PathError
	switch {
	case len(args) > 0 && args[0] == "attach" && exitCode(err) == exitForbidden:
		return "; phpwhy doctor tells what works here"
	case errors.As(err, &start), errors.As(err, &path) && path.Op == "fork/exec":
		return "; attach -- takes a program and its arguments, such as php script.php"
	}
	return ""
}

func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "phpwhy",
		Short: "Tell why a PHP worker hangs",
		Long: `phpwhy attaches to a running php, php-fpm or mod_php process, stops it for
moments where libc's mmap and mremap are entered, and names the root cause with
the PHP function, file and line.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageErrorf("there is no command %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(s.err) // no result: it was not asked for
			_ = cmd.Help()
			return usageErrorf("name a command")
		},
		Version: versionLine(),
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newAttach(s), newCollect(s), newDump(s), newCore(s), newDoctor(s), newMatch(s), newReport(s), newRules(s), newSchema(s), newVersion(s), newWatch(s))
	strictDefaults(root)
	return root
}

// strictDefaults has the commands that cobra adds refuse what they don't know.
func strictDefaults(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Run, c.RunE = nil, func(c *cobra.Command, args []string) error {
				found, rest, err := root.Find(args)
				if err != nil || found == nil || len(rest) > 0 {
					return usageErrorf("there is no command %q", strings.Join(args, " "))
				}
				found.InitDefaultHelpFlag()
				return found.Help()
			}
		case "completion":
			c.Args = nil
			c.RunE = func(_ *cobra.Command, args []string) error {
				if len(args) > 0 {
					return usageErrorf("completion is for bash, fish, powershell or zsh, not %q", args[0])
				}
				return usageErrorf("completion takes a shell: bash, fish, powershell or zsh")
			}
		}
	}
}

// modest gives up all capabilities but keep before anything of a target is
// read: a file made to deceive must not find a root that can do everything.
// Where that is not possible phpwhy works with what it has; doctor says so.
func modest(keep proc.CapSet) { _ = proc.Drop(keep) }

// oneLine keeps an error on one line and free of control bytes, whatever the
// target's paths and names contain.
func oneLine(err error) string {
	return printable(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}

// printable replaces what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
}
