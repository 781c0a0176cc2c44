package cli_test

import (
	"fmt"
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
	oneLine(t, run(t, "core", core, "--exe", "/bin/sh"), 2, "another build")
	oneLine(t, run(t, "core", core, "--sysroot", t.TempDir()), 2, "no such file")
	oneLine(t, run(t, "core", core, "--sysroot", "/nonexistent"), 2, "no such file")
	oneLine(t, run(t, "core", "/nonexistent"), 2, "no such file")
	oneLine(t, run(t, "core", testphp.Stripped(t)), 2, "not a core file")
	oneLine(t, run(t, "core"), 2, "one core file")
}
