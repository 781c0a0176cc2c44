package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/phpwhy/phpwhy/internal/report"
)

const (
	// maxWaiting bounds the findings that wait for the command to be run.
	maxWaiting = 16
	// killAfter is what the command has between SIGTERM and SIGKILL.
	killAfter = 500 * time.Millisecond
	// maxEnv bounds each environment variable, in bytes.
	maxEnv = 4096
)

// Command is run with each finding: its line of JSON on standard input, and the
// most wanted fields in environment variables. It is a program with arguments,
// no shell.
type Command struct {
	Args []string
	For  time.Duration // at most
	Errs io.Writer     // takes what it prints
}

var errQuote = errors.New("a quote is not closed")

// SplitCommand splits a command line at blanks. Single and double quotes keep
// blanks together, a backslash takes the next character as it is, except in
// single quotes; nothing else has a meaning.
func SplitCommand(s string) ([]string, error) {
	var out []string
	var word strings.Builder
	inWord, escaped := false, false
	quote := rune(0)
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case unicode.IsSpace(r):
			if inWord {
				out = append(out, word.String())
			}
			word.Reset()
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, errQuote
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}

// run runs the command once. Its process group ends with the context, and with
// the time that it has.
func (c *Command) run(ctx context.Context, w *report.Watched, line []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.For)
	defer cancel()
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Stdin = bytes.NewReader(line)
	cmd.Stdout, cmd.Stderr = c.Errs, c.Errs
	// systemd hears of phpwhy from phpwhy alone.
	own := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "WATCHDOG_")
	})
	cmd.Env = append(own, environment(w)...)
	// A group of its own: what it starts ends with it, and a Ctrl-C is ours to pass on.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = killAfter // for pipes that a grandchild holds
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	group := -cmd.Process.Pid
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	_ = syscall.Kill(group, syscall.SIGTERM)
	force := time.AfterFunc(killAfter, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
	err := <-done
	force.Stop()
	_ = syscall.Kill(group, syscall.SIGKILL)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("it was ended after %v", c.For)
	}
	return err
}

// environment gives the fields of a finding that commands want most.
func environment(w *report.Watched) []string {
	var f report.Finding
	if len(w.Findings) > 0 {
		f = w.Findings[0]
	}
	uri := ""
	if q := w.Worker.Request; q != nil {
		uri = q.URI
	}
	vars := [][2]string{
		{"SCHEMA", w.Schema}, {"TIME", w.Time.UTC().Format(time.RFC3339Nano)}, {"TRIGGER", w.Trigger.Kind}, {"PID", strconv.Itoa(w.Worker.PID)},
		{"POOL", w.Worker.Pool}, {"VERDICT", w.Verdict}, {"RULE", f.Rule}, {"SEVERITY", f.Severity}, {"TITLE", f.Title}, {"MESSAGE", f.Message},
		{"FILE", f.PHP.File}, {"LINE", strconv.Itoa(f.PHP.Line)}, {"URI", uri}, {"CAPTURE", w.Capture},
	}
	out := make([]string, len(vars))
	for i, v := range vars {
		out[i] = "PHPWHY_" + v[0] + "=" + printable(v[1])
	}
	return out
}

// printable makes foreign text fit for an environment variable: no NUL, which
// would end it, and nothing that drives a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxEnv)]
}
