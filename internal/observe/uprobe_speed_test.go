package observe

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// appending grows a string page by page, one mremap each, in a function of a
// method, and writes how often it did.
const appending = `<?php
class Report {
    function rows(string $page, int &$n, $out): void {
        for ($s = '', $i = 0; $i < 50000; $i++) {
            $s .= $page;
            if (++$n % 1000 == 0) { rewind($out); fwrite($out, sprintf('%015d', $n)); fflush($out); }
        }
    }
    function build(string $page, int &$n, $out): void { for (;;) { $this->rows($page, $n, $out); } }
}
echo "ready\n"; flush();
$n = 0;
(new Report)->build(str_repeat('a', 4096), $n, fopen($argv[1], 'c'));
`

// TestUprobesKeepUpAndLeaveTheWorkerItsSpeed measures the worker against itself,
// on its own processor time: what else the machine does is not counted.
func TestUprobesKeepUpAndLeaveTheWorkerItsSpeed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	needUprobes(t)
	dir := t.TempDir()
	script, count := filepath.Join(dir, "appending.php"), filepath.Join(dir, "count")
	writeFile(t, script, appending)
	w := testphp.StartCommand(t, testphp.Stripped(t), "-n", "-d", "memory_limit=-1", script, count)
	look := func() (n, cpu float64) {
		b, _ := os.ReadFile(count)
		rounds, _ := strconv.Atoi(strings.TrimLeft(string(b), "0"))
		s, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", w.PID))
		if err != nil {
			t.Fatal(err)
		}
		cpu, _ = strconv.ParseFloat(strings.Fields(string(s))[0], 64)
		return float64(rounds), cpu / 1e9
	}
	speed := func(f func()) (perCPU, used, wall float64) {
		from := time.Now()
		n0, c0 := look()
		f()
		n1, c1 := look()
		return (n1 - n0) / (c1 - c0), c1 - c0, time.Since(from).Seconds()
	}
	for _, pause := range []float64{0.2, 0.05, 1} {
		t.Run(fmt.Sprintf("max-pause %v", pause), func(t *testing.T) {
			rest := func() { time.Sleep(time.Second) }
			before, _, _ := speed(rest)
			var c *capture.Capture
			own := ownCPU(t)
			with, used, wall := speed(func() {
				c = probed(t, w.PID, func(o *Options) { o.Break, o.For, o.MaxPause = []string{"mremap"}, 3*time.Second, pause })
			})
			own = ownCPU(t) - own
			after, _, _ := speed(rest)
			free := (before + after) / 2
			joined := 0
			for i := range c.Events {
				if st := &c.Stacks[c.Events[i].Stack]; st.Error == "" && mixed(st) {
					joined++
				}
			}
			perSecond := float64(joined) / (float64(c.Observation.DurationMS) / 1000)
			t.Logf("%.0f mixed stacks a second, %.0f per second of our own processor time, worker at %.0f %% of its speed (%.0f rounds per second of processor time, free %.0f), which had %.0f %% of a processor; %v",
				perSecond, float64(joined)/own.Seconds(), 100*with/free, with, free, 100*used/wall, c.Observation.Notes)
			if pause < 1 && with/free < 1-2*pause-0.1 { // an estimate, and the machine may be busy
				t.Errorf("the worker was slowed down to %.2f", with/free)
			}
			if perSecond < 500 {
				t.Errorf("%.0f stacks a second", perSecond)
			}
		})
	}
}

func ownCPU(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// mixed reports whether a stack has native frames, and PHP frames down to {main}.
func mixed(st *stack.Stack) bool {
	native, main := false, false
	for i := range st.Frames {
		f := &st.Frames[i]
		native = native || f.Kind == stack.Native
		main = main || f.Kind == stack.PHP && f.Function == "{main}"
	}
	return native && main
}
