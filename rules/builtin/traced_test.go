package builtin_test

import (
	"context"
	"os"
	"testing"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/rules"
)

// A worker that a debugger holds can't be attached to. With PHPWHY_RECORD the
// capture is written there, see captures/record.
func TestAWorkerThatIsTracedIsToldByItsTracer(t *testing.T) {
	script := os.Getenv("PHPWHY_SCRIPT")
	if script == "" {
		script = testphp.Hang(t, "cpu.php-loop.php")
	}
	php := os.Getenv("PHPWHY_RECORD_PHP")
	if php == "" {
		php = testphp.Stripped(t)
	}
	pid := held(t, php, script)
	c, err := observe.New().Sample(context.Background(), pid)
	if err != nil {
		t.Fatal(err)
	}
	if name := os.Getenv("PHPWHY_RECORD"); name != "" {
		out, err := capture.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Normalize(); err != nil {
			t.Fatal(err)
		}
		if err := capture.Write(out, c); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	set, _ := load(t)
	rep, err := set.Evaluate(capture.Observe(c), rules.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Findings) != 1 || rep.Findings[0].Rule != "stopped.by-tracer" {
		t.Errorf("found %+v", rep.Findings)
	}
}
