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

func TestCoreAndMatchReadACoreFile(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.recursion.php"))
	core := filepath.Join(t.TempDir(), "core")
	if out, err := exec.Command(testphp.Require(t, "gdb"), "-nx", "-batch", "-iex", "set debuginfod enabled off",
		"-p", fmt.Sprint(w.PID), "-ex", "generate-core-file "+core).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, args := range [][]string{{"core", core}, {"match", core}, {"core", core, "--exe", testphp.Stripped(t)}, {"core", core, "--sysroot", "/"}} {
		r := run(t, args...)
		if r.code != 0 || !strings.Contains(r.out, "mem.recursion.php:") || !strings.Contains(r.out, "execute_ex () from php8.2") || !strings.Contains(r.out, "from a core of 1 thread") {
			t.Errorf("%v: exit %d: %s%s", args, r.code, r.out, r.err)
		}
	}
	doc := run(t, "core", core, "--format", "json")
	fits(t, "report", doc.out)
	if rep := parse(t, doc); rep.Observation.Engine != "core" || rep.Target.PID != w.PID {
		t.Errorf("got %+v", rep)
	}
	if strings.Contains(doc.out, "ended by") {
		t.Errorf("a process that goes on is told to have ended: %s", doc.out)
	}
	cutCores(t, core)
	oneLine(t, run(t, "core", core, "--exe", "/bin/sh"), 2, "another build")
	oneLine(t, run(t, "core", core, "--sysroot", t.TempDir()), 2, "no such file")
	oneLine(t, run(t, "core", core, "--sysroot", "/nonexistent"), 2, "no such file")
	oneLine(t, run(t, "core", "/nonexistent"), 2, "no such file")
	oneLine(t, run(t, "core", testphp.Stripped(t)), 2, "not a core file")
	oneLine(t, run(t, "core"), 2, "one core file")
}

// cutCores cuts a core off, as a full disk does, down to its headers. What is left is
// read, or it is said that it is not whole; it stays a core.
func cutCores(t *testing.T, core string) {
	t.Helper()
	whole, err := os.ReadFile(core)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ size, code int }{{len(whole) - 10, 0}, {len(whole) / 100, 2}, {len(whole) / 1000, 2}} {
		cut := filepath.Join(t.TempDir(), "core")
		if err := os.WriteFile(cut, whole[:c.size], 0o600); err != nil {
			t.Fatal(err)
		}
		for _, cmd := range []string{"core", "match"} {
			r := run(t, cmd, cut)
			if r.code != c.code || strings.Contains(r.err, "not a core file") {
				t.Errorf("%s, %d of %d bytes: exit %d: %s", cmd, c.size, len(whole), r.code, r.err)
			}
			if c.code != 0 {
				oneLine(t, r, c.code, "the core file is cut off")
				if strings.Count(r.err, cut) != 1 {
					t.Errorf("the file is named more than once: %s", r.err)
				}
			}
		}
	}
}
