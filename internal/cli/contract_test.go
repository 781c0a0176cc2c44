package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// A disk that is full has swallowed the result, whichever way a command prints it.
func TestAResultThatCannotBeWrittenIsNoSuccess(t *testing.T) {
	pasted := filepath.Join(t.TempDir(), "pasted.txt")
	write(t, pasted, "#0  0x1 in mremap () from libc.so.6\n#1  0x3 in concat_function () from php\n#2  0x5 in execute_ex () from php\n")
	for _, args := range [][]string{
		{"help"}, {"help", "attach"}, {"attach", "--help"}, {"version"}, {"--version"}, {"schema", "report"}, {"completion", "bash"},
		{"match", pasted}, {"match", pasted, "--format", "json"}, {"rules", "list"}, {"rules", "show", "mem.recursion"}, {"rules", "schema"},
		{"rules", "explain", "mem.recursion", pasted}, {"rules", "lint"}, {"rules", "doc"},
	} {
		c := exec.Command("sh", append([]string{"-c", `exec "$0" "$@" >/dev/full`, phpwhy(t)}, args...)...)
		b := begin(t, c)
		r := finish(t, c, b)
		if r.code != 2 || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.err, "no space left") {
			t.Errorf("%v: exit %d, %q", args, r.code, r.err)
		}
	}
}

// https://no-color.org: NO_COLOR counts when it is present and not empty.
func TestColourIsForTerminalsAndWhoeverWantsIt(t *testing.T) {
	pasted := filepath.Join(t.TempDir(), "pasted.txt")
	write(t, pasted, "#0  0x1 in mremap () from libc.so.6\n#1  0x3 in concat_function () from php\n#2  0x5 in execute_ex () from php\n")
	command := phpwhy(t) + " match " + pasted
	for _, c := range []struct {
		name, command string
		env           []string
		want          bool
	}{
		{"a terminal", command, []string{"TERM=xterm"}, true},
		{"an empty NO_COLOR", command, []string{"TERM=xterm", "NO_COLOR="}, true},
		{"NO_COLOR", command, []string{"TERM=xterm", "NO_COLOR=1"}, false},
		{"a terminal without colours", command, []string{"TERM=dumb"}, false},
		{"a pipe", command + " | cat", []string{"TERM=xterm"}, false},
	} {
		s := exec.Command(testphp.Require(t, "script"), "-qec", c.command, "/dev/null")
		s.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "SHELL=/bin/sh"}, c.env...)
		out, err := s.Output()
		if err != nil || !strings.Contains(string(out), "concat_function") {
			t.Fatalf("%s: %v: %s", c.name, err, out)
		}
		if got := strings.Contains(string(out), "\x1b["); got != c.want {
			t.Errorf("%s: colour %v: %q", c.name, got, out)
		}
	}
}

// A zombie and a kernel thread are there; what is no worker is told as attach tells it.
func TestWhatIsNamedAndNoWorkerIsToldApart(t *testing.T) {
	sleep := testphp.StartCommand(t, "sh", "-c", "echo ready; exec sleep 1000")
	zombie := testphp.StartCommand(t, "sh", "-c", "echo ready")
	awaitZombie(t, zombie.PID)
	for _, c := range []struct{ name, pid, say string }{
		{"no such pid", "999999999", "no such process"},
		{"a zombie", fmt.Sprint(zombie.PID), "it is a zombie"},
		{"a kernel thread", "2", "it is a kernel thread"},
		{"not PHP", fmt.Sprint(sleep.PID), "it is not PHP"},
	} {
		if b, _ := os.ReadFile("/proc/2/comm"); c.pid == "2" && string(b) != "kthreadd\n" {
			continue // in a pid namespace
		}
		for _, args := range [][]string{{"collect", "--pid", c.pid}, {"watch", "--for", "3s", "--pid", c.pid}} {
			if r := run(t, args...); r.code != 3 || !strings.Contains(r.err, c.say) || strings.Count(r.err, "\n") != 1 {
				t.Errorf("%s, %v: exit %d, %q", c.name, args, r.code, r.err)
			}
		}
	}
}

func TestCollectRefusesABreakpointThatCannotBe(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	if r := run(t, "collect", "--pid", fmt.Sprint(w.PID), "--break", "bogus_fn"); r.code != 2 || !strings.Contains(r.err, "--break bogus_fn") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
}
