package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

func TestSplitCommand(t *testing.T) {
	for in, want := range map[string][]string{
		"":                           nil,
		" \t ":                       nil,
		"/bin/a":                     {"/bin/a"},
		" a  b\tc ":                  {"a", "b", "c"},
		`a 'b c' "d e"`:              {"a", "b c", "d e"},
		`a b'c d'e`:                  {"a", "bc de"},
		`a "" ''`:                    {"a", "", ""},
		`a b\ c \'`:                  {"a", "b c", "'"},
		`a '\n' "\""`:                {"a", `\n`, `"`},
		"a $HOME `x` *;|& >b":        {"a", "$HOME", "`x`", "*;|&", ">b"},
		`sh -c 'echo "$PHPWHY_PID"'`: {"sh", "-c", `echo "$PHPWHY_PID"`},
	} {
		if got, err := SplitCommand(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q (%v), want %q", in, got, err, want)
		}
	}
	for _, in := range []string{`a 'b`, `a "b`, `a \`, `"`} {
		if got, err := SplitCommand(in); err == nil {
			t.Errorf("%q: %q, want an error", in, got)
		}
	}
}

func finding() *report.Watched {
	w := report.BuildWatched(sample(7), report.Verdict{Findings: []report.Finding{{
		Rule: "cpu.php-loop", Severity: "low", Kind: report.Cause, Message: "a\x00b\x1b[31m\nc", PHP: report.Site{File: "/srv/a.php", Line: 3},
	}}})
	w.Time, w.Capture = noon, "/var/x"
	w.Trigger.Kind = "cpu"
	return w
}

func TestCommandGetsTheFinding(t *testing.T) {
	var out bytes.Buffer
	c := &Command{Args: []string{"/bin/sh", "-c", `cat; env | grep ^PHPWHY_ | sort; echo "$PHPWHY_MESSAGE" >&2`}, For: time.Minute, Errs: &out}
	if err := c.run(t.Context(), finding(), []byte("{line}\n")); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for _, want := range []string{
		"{line}\n", "PHPWHY_RULE=cpu.php-loop\n", "PHPWHY_PID=7\n", "PHPWHY_FILE=/srv/a.php\n", "PHPWHY_LINE=3\n", "PHPWHY_CAPTURE=/var/x\n",
		"PHPWHY_TRIGGER=cpu\n", "PHPWHY_TIME=2026-01-02T12:00:00Z\n", "PHPWHY_VERDICT=cause\n", "PHPWHY_SCHEMA=phpwhy/finding/v1\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if strings.ContainsAny(got, "\x1b\x00") {
		t.Errorf("control characters came through: %q", got)
	}
}

func TestNoShellReadsTheCommand(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	args, err := SplitCommand("/bin/echo $(touch " + mark + ") ; touch " + mark)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c := &Command{Args: args, For: time.Minute, Errs: &out}
	if err := c.run(t.Context(), finding(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Errorf("a shell has run; output %q", out.String())
	}
}

// stubborn is a command that ignores SIGTERM, as does what it starts, and says
// both pids.
const stubborn = `trap '' TERM; echo $$ >"$0.outer"; sh -c 'trap "" TERM; echo $$ >"$0.new"; mv "$0.new" "$0.inner"; sleep 60; sleep 60' "$0" & sleep 60; sleep 60`

func TestCommandEndsWithEverythingItStarted(t *testing.T) {
	for name, limit := range map[string]time.Duration{"its time is over": 8 * time.Second, "the watch is ended": time.Hour} {
		t.Run(name, func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "pid")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if limit == time.Hour {
				go func() {
					defer cancel()
					for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
						if _, err := os.Stat(base + ".inner"); err == nil {
							return
						}
					}
				}()
			}
			var out bytes.Buffer
			cmd := &Command{Args: []string{"/bin/sh", "-c", stubborn, base}, For: limit, Errs: &out}
			if err := cmd.run(ctx, finding(), nil); err == nil {
				t.Error("no error")
			}
			for _, which := range []string{".outer", ".inner"} {
				b, err := os.ReadFile(base + which)
				if err != nil {
					t.Fatal(err)
				}
				pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
				if err != nil {
					t.Fatal(err)
				}
				for end := time.Now().Add(5 * time.Second); testphp.Alive(pid); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("%s (%d) is alive", which, pid)
					}
				}
			}
		})
	}
}

func TestCommandThatFailsSaysHow(t *testing.T) {
	c := &Command{Args: []string{"/bin/sh", "-c", "exit 3"}, For: time.Minute, Errs: &bytes.Buffer{}}
	if err := c.run(t.Context(), finding(), nil); fmt.Sprint(err) != "exit status 3" {
		t.Errorf("%v, want exit status 3", err)
	}
}
