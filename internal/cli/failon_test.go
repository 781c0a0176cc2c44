package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// passes and fails are the severities that a finding of severity high passes
// --fail-on with, and those that it does not.
var (
	passes = []string{"critical"}
	fails  = []string{"high", "medium", "low", "info"}
)

func TestFailOnIsAnExitCodeAndChangesNoReport(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "hang.zst")
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	time.Sleep(grown)
	if r := run(t, "attach", fmt.Sprint(w.PID), "--capture", file, "--fail-on", "critical"); r.code != 0 || r.err != "" {
		t.Errorf("attach: exit %d: %s", r.code, r.err)
	}
	failed(t, run(t, "attach", fmt.Sprint(w.PID), "--fail-on", "high"), "mem.string-concat")
	seen := filepath.Join(dir, "seen.zst")
	if r := run(t, "collect", "--pid", fmt.Sprint(w.PID), "--break", "mmap,mremap", "-o", seen, "--fail-on", "critical"); r.code != 0 {
		t.Errorf("collect: exit %d: %s", r.code, r.err)
	}
	failed(t, run(t, "collect", "--pid", fmt.Sprint(w.PID), "--break", "mmap,mremap", "--fail-on", "high"), "mem.string-concat")

	for _, args := range [][]string{
		{"match", file}, {"match", "--format", "json", file}, {"match", file, file},
		{"report", file}, {"report", "--format", "json", seen}, {"report", "--format", "folded", file},
		{"report", "--diff", seen, file},
	} {
		t.Run(strings.Join(args[:len(args)-1], " "), func(t *testing.T) {
			plain := run(t, args...)
			if plain.code != 0 || plain.err != "" {
				t.Fatalf("exit %d: %s", plain.code, plain.err)
			}
			for _, least := range passes {
				if r := run(t, append(args, "--fail-on", least)...); r != plain {
					t.Errorf("%s: exit %d: %s", least, r.code, r.err)
				}
			}
			for _, least := range fails {
				r := run(t, append(args, "--fail-on", least)...)
				failed(t, r, "mem.string-concat")
				if r.out != plain.out {
					t.Errorf("%s: the report is another: %s", least, r.out)
				}
			}
		})
	}
	// What is left out of force is not found either.
	if r := run(t, "match", file, "--no-builtin-rules", "--fail-on", "info"); r.code != 0 {
		t.Errorf("without rules: exit %d: %s", r.code, r.err)
	}
	// What went wrong goes before what was found.
	if r := run(t, "match", file, "/nonexistent", "--fail-on", "info"); r.code != 2 || !strings.Contains(r.out, "mem.string-concat") {
		t.Errorf("with an unreadable file: exit %d: %s", r.code, r.err)
	}
}

// failed checks that a run found what it must not, and said so in one line.
func failed(t *testing.T, r result, rule string) {
	t.Helper()
	if r.code != 1 || r.out == "" || strings.Count(r.err, "\n") != 1 || !strings.HasPrefix(r.err, "phpwhy: --fail-on ") || !strings.HasSuffix(r.err, rule+"\n") {
		t.Errorf("exit %d: %q, %d bytes of report", r.code, r.err, len(r.out))
	}
}

func TestFailOnLooksAtCausesOnly(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	core := filepath.Join(t.TempDir(), "core")
	if out, err := exec.Command(testphp.Require(t, "gdb"), "-nx", "-batch", "-iex", "set debuginfod enabled off",
		"-p", fmt.Sprint(w.PID), "-ex", "generate-core-file "+core).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, c := range []struct {
		kind string
		code int
	}{{"cause", 1}, {"benign", 0}} {
		dir := t.TempDir()
		rule := "schema: phpwhy/rule/v1\nid: shop.sleepy\ntitle: it sleeps\nkind: " + c.kind + "\nseverity: medium\nmatch: {php: leaf internal sleep}\nmessage: sleeping\n"
		if err := os.WriteFile(filepath.Join(dir, "mine.yaml"), []byte(rule), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"dump", fmt.Sprint(w.PID)}, {"dump", "--no-stop", fmt.Sprint(w.PID)}, {"core", core}, {"collect", "--pid", fmt.Sprint(w.PID)}} {
			args = append(args, "--rules", dir, "--no-builtin-rules", "--fail-on")
			if r := run(t, append(args, "medium")...); r.code != c.code || !strings.Contains(r.out, "it sleeps") {
				t.Errorf("%q, %s: exit %d, want %d: %s%s", args, c.kind, r.code, c.code, r.out, r.err)
			}
			if r := run(t, append(args, "high")...); r.code != 0 || r.err != "" {
				t.Errorf("%q, %s: exit %d: %s", args, c.kind, r.code, r.err)
			}
		}
	}
	// A target problem keeps its code.
	if r := run(t, "dump", "999999999", fmt.Sprint(w.PID), "--fail-on", "info"); r.code != 3 || !strings.Contains(r.out, "sleep") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
}

// TestFailOnKeepsTheCodeOfAWorkerThatEnds: a cause was found, and that the worker is
// gone matters more.
func TestFailOnKeepsTheCodeOfAWorkerThatEnds(t *testing.T) {
	script := filepath.Join(t.TempDir(), "ends.php")
	if err := os.WriteFile(script, []byte("<?php\necho \"ready\\n\"; flush();\n$s = ''; $end = microtime(true) + 2;\nwhile (microtime(true) < $end) { $s .= str_repeat('x', 512); }\nposix_kill(getmypid(), 9);\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w := testphp.Start(t, testphp.Stripped(t), script)
	if r := run(t, "attach", fmt.Sprint(w.PID), "--for", "20s", "--stops", "1000000", "--fail-on", "info"); r.code != 3 || !strings.Contains(r.err, "ended while it was observed") {
		t.Errorf("exit %d: %s%s", r.code, r.out, r.err)
	}
}

func TestFailOnNamesAndCompletesItsChoices(t *testing.T) {
	for _, command := range []string{"attach", "dump", "core", "match", "collect", "report"} {
		for _, bad := range []string{"fatal", "HIGH", ""} {
			oneLine(t, run(t, command, "1", "--fail-on", bad), 2, "info, low, medium, high or critical")
		}
		if r := run(t, "__complete", command, "--fail-on", ""); !strings.HasPrefix(r.out, "info\nlow\nmedium\nhigh\ncritical\n:") {
			t.Errorf("%s completes %q", command, r.out)
		}
		if r := run(t, command, "--help"); !strings.Contains(r.out, "--fail-on SEVERITY ") {
			t.Errorf("%s does not tell of it: %s", command, r.out)
		}
	}
}
