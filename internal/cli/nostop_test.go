package cli_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

func TestDumpWithoutStoppingATracedWorker(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "recursion50.php"))
	c := exec.Command(testphp.Require(t, "strace"), "-o", "/dev/null", "-p", fmt.Sprint(w.PID))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	observing(t, w.PID)
	r := run(t, "dump", "--no-stop", fmt.Sprint(w.PID), "--format", "json")
	rep := parse(t, r)
	if r.code != 0 || len(rep.Stacks) != 1 || rep.Stacks[0].End != "root" || rep.Stacks[0].Error != "" {
		t.Fatalf("exit %d: stacks %+v", r.code, rep.Stacks)
	}
	frames := rep.Stacks[0].Frames
	if n := len(frames); n < 51 || frames[n-1].Function != "{main}" {
		t.Errorf("%d frames", n)
	}
	for _, f := range frames {
		if f.Kind != "php" {
			t.Errorf("a frame of kind %s: %s", f.Kind, f.Function)
		}
	}
	if r := run(t, "dump", "--no-stop", fmt.Sprint(w.PID)); !strings.Contains(r.out, "without stopping") {
		t.Errorf("the report does not say that nothing was stopped: %s", r.out)
	}
	oneLine(t, run(t, "dump", "--no-stop", "--values", fmt.Sprint(w.PID)), 2, "--values")
}
