package observe

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// looks are the facts of several looks at a process.
func looks(t *testing.T, pid, n int, apart time.Duration) []map[string]any {
	t.Helper()
	w, err := New().Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var out []map[string]any
	for range n {
		c, err := w.Look(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c.Facts)
		time.Sleep(apart)
	}
	return out
}

func TestLooksTellForHowLongAWaitHasLasted(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, "a.lock")
	hold, wait := filepath.Join(dir, "hold.php"), filepath.Join(dir, "wait.php")
	writeFile(t, hold, fmt.Sprintf("<?php $f = fopen('%s', 'c'); flock($f, LOCK_EX); echo \"ready\\n\"; flush(); sleep(600);", lock))
	writeFile(t, wait, fmt.Sprintf("<?php $f = fopen('%s', 'c'); echo \"ready\\n\"; flush(); flock($f, LOCK_EX);", lock))
	for name, php := range map[string]string{"stripped": testphp.Stripped(t), "DWARF": testphp.DWARF(t)} {
		t.Run(name, func(t *testing.T) {
			holder := testphp.Start(t, php, hold)
			waiter := testphp.Start(t, php, wait)
			for pid, call := range map[int]string{holder.PID: "clock_nanosleep", waiter.PID: "flock"} {
				all := looks(t, pid, 4, 200*time.Millisecond)
				for _, fact := range []string{"wait.lasting_s", "stack.same_call_s", "stack.unchanged_s"} {
					if v, ok := all[0][fact]; ok {
						t.Errorf("%s: one look knows %s: %v", call, fact, v)
					}
					if s, _ := all[3][fact].(float64); s < 0.6 {
						t.Errorf("%s: after 0.6 s %s is %v", call, fact, all[3][fact])
					}
				}
				if all[3]["wait.syscall"] != call {
					t.Errorf("%s: %v", call, all[3]["wait.syscall"])
				}
			}
		})
	}
}

// A loop that waits again and again is at one place of the code all the time.
func TestLooksTellWaitsThatOnlyLookAlikeApart(t *testing.T) {
	script := filepath.Join(t.TempDir(), "many.php")
	// The reader is answered every 20 ms; its variables are the same each time.
	writeFile(t, script, `<?php
$pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$child = proc_open(['/bin/sh', '-c', 'while kill -0 $PPID 2>/dev/null; do echo; sleep 0.02; done'], [1 => $pair[1]], $pipes);
fclose($pair[1]);
echo "ready\n"; flush();
while (true) { fgets($pair[0]); }
`)
	w := testphp.Start(t, testphp.Stripped(t), script)
	waits := 0
	for i, m := range looks(t, w.PID, 6, 150*time.Millisecond) {
		s, known := m["wait.lasting_s"].(float64)
		if known != (i > 0) || s > 0 {
			t.Errorf("look %d: a wait has lasted for %v", i, m["wait.lasting_s"])
		}
		if m["wait.syscall"] == "poll" || m["wait.syscall"] == "recvfrom" {
			waits++
		}
	}
	if waits < 3 {
		t.Errorf("only %d looks met a wait", waits)
	}
}

// The last sample of an observation wakes the worker a moment before its state is read.
func TestAWorkerThatWaitsIsNotSaidToRun(t *testing.T) {
	w, err := New().Open(testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php")).PID)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	opt := Defaults()
	// The observation ends right behind a sample.
	opt.For, opt.SampleEvery = 20*time.Millisecond, time.Millisecond
	for range 20 {
		c, err := w.Observe(context.Background(), opt)
		if err != nil {
			t.Fatal(err)
		}
		if c.Facts["proc.state"] != "S" {
			t.Errorf("state %v, runnable %v %%", c.Facts["proc.state"], c.Facts["proc.runnable_pct"])
		}
	}
}
