package observe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// hungry is a loop that is watched for two seconds, and what is said of the processor
// it had.
func hungry(t *testing.T, keep func(pid int)) (c *capture.Capture, note string) {
	t.Helper()
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	keep(w.PID)
	time.Sleep(time.Second)
	o := Defaults()
	o.For = 2 * time.Second
	c, err := New().Attach(context.Background(), w.PID, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Observation.Notes {
		if strings.Contains(n, "wanted a processor") {
			note = n
		}
	}
	t.Logf("cpu %v %%, runnable %v %%: %s", c.Facts["proc.cpu_pct"], c.Facts["proc.runnable_pct"], note)
	return c, note
}

func TestAWorkerWhoseProcessorOthersHaveIsSaidToStarve(t *testing.T) {
	_, note := hungry(t, func(pid int) { testphp.Starve(t, pid) })
	if !strings.Contains(note, ": other work on this host had it") {
		t.Errorf("the note is %q", note)
	}
}

func TestAWorkerInAGroupWithACPULimitIsSaidToBeHeldBackByIt(t *testing.T) {
	group := limited(t)
	_, note := hungry(t, func(pid int) {
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(fmt.Sprint(pid)), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	if want := "control group /" + filepath.Base(group) + " may use 5ms in each 100ms and was held back for "; !strings.Contains(note, want) {
		t.Errorf("the note is %q, not %q", note, want)
	}
}

// limited makes a control group that may use a twentieth of a processor.
func limited(t *testing.T) string {
	t.Helper()
	var errs []string
	for _, v := range []struct{ mount, max, text string }{
		{"/sys/fs/cgroup", "cpu.max", "5000 100000"},
		{"/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "5000"}, // of 100 ms unless said otherwise
	} {
		dir, err := os.MkdirTemp(v.mount, "phpwhy-test")
		if err == nil {
			t.Cleanup(func() { // once the worker has left it
				for range 100 {
					if os.Remove(dir) == nil {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
			if _, err = os.Stat(filepath.Join(dir, v.max)); err == nil {
				err = os.WriteFile(filepath.Join(dir, v.max), []byte(v.text), 0o644)
			}
		}
		if err == nil {
			return dir
		}
		errs = append(errs, err.Error())
	}
	t.Skipf("no control group with a CPU limit can be made here: %s", strings.Join(errs, "; "))
	return ""
}

func TestAWorkerThatGetsItsProcessorIsNotSaidToStarve(t *testing.T) {
	c, note := hungry(t, func(int) {})
	if cpu, _ := c.Facts["proc.cpu_pct"].(float64); note != "" && cpu > 50 {
		t.Errorf("with %v %% of a processor it is said that %s", cpu, note)
	}
}

// TestAStarvedWorkerIsStillSaidToWaitForItsLock: it takes its time to get back into the
// wait that it was looked at in.
func TestAStarvedWorkerIsStillSaidToWaitForItsLock(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "cache.lock")
	script := filepath.Join(t.TempDir(), "lock.php")
	if err := os.WriteFile(script, []byte("<?php $f = fopen('"+lock+"', 'c'); echo \"ready\\n\"; flush(); flock($f, LOCK_EX); sleep(600);\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	holder := testphp.Start(t, testphp.Stripped(t), script)
	awaitState(t, holder.PID, "S")
	w := testphp.Start(t, testphp.Stripped(t), script)
	awaitState(t, w.PID, "S")
	testphp.Starve(t, w.PID)
	o := Defaults()
	o.For = 1500 * time.Millisecond
	c, err := New().Attach(context.Background(), w.PID, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d samples, in state %v", c.Observation.Samples, c.Facts["proc.state"])
	expect(t, c, map[string]any{"lock.path": lock, "lock.holder_pid": int64(holder.PID)})
}
