package testphp

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each script must hang in the way its header says, on both builds.
// The scripts of single rules are tried where the rules are, in rules/builtin.
func TestScriptsHangAsTheySay(t *testing.T) {
	strace := Require(t, "strace")
	scripts := []struct {
		name    string
		call    string // a system call that it makes again and again
		perSec  int    // at least
		busy    bool   // it keeps a core busy
		waiting bool   // it uses no CPU at all
	}{
		{name: "mem.string-concat.php", call: "mremap", perSec: 100, busy: true},
		{name: "mem.array-append.php", call: "mremap", perSec: 5, busy: true},
		{name: "mem.recursion.php", call: "mmap", perSec: 1},
		{name: "cpu.php-loop.php", busy: true},
		{name: "preg.php", busy: true},
		{name: "usort.php", busy: true},
		{name: "array_map.php", call: "clock_nanosleep", perSec: 50},
		{name: "sleep.php", waiting: true},
		{name: "recursion50.php", waiting: true},
	}
	for build, php := range map[string]func(testing.TB) string{"stripped": Stripped, "dwarf": DWARF} {
		for _, s := range scripts {
			t.Run(build+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				w := Start(t, php(t), Hang(t, s.name))
				before, from := cpuTime(t, w.PID), time.Now()
				if s.call == "" {
					time.Sleep(500 * time.Millisecond)
				} else if n := countCalls(t, strace, w.PID, s.call, 2*time.Second); n < 2*s.perSec {
					t.Errorf("%d %s in two seconds", n, s.call)
				}
				used, wall := cpuTime(t, w.PID)-before, time.Since(from)
				if s.busy && used < wall/20 { // it may share its core with many
					t.Errorf("it used %v of CPU in %v", used, wall)
				}
				if s.waiting && used > 0 {
					t.Errorf("it used %v of CPU", used)
				}
				if !Alive(w.PID) {
					t.Errorf("it has ended: %s", w.Stderr())
				}
			})
		}
	}
}

func TestWorkerIsLimitedAndEndsWithItsTest(t *testing.T) {
	var pid int
	t.Run("worker", func(t *testing.T) {
		w := Start(t, Stripped(t), Hang(t, "sleep.php"))
		pid = w.PID
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"Max address space " + strconv.Itoa(memoryLimitKiB*1024),
			"Max cpu time " + strconv.Itoa(cpuLimitSec),
		} {
			if !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), want) {
				t.Errorf("no %q in %s", want, limits)
			}
		}
	})
	if pid == 0 || Alive(pid) {
		t.Errorf("worker %d runs after its test", pid)
	}
}

func TestFPMRequestHangsInOneNamedWorker(t *testing.T) {
	for build, fpm := range map[string]func(testing.TB) string{"stripped": StrippedFPM, "dwarf": DWARFFPM} {
		t.Run(build, func(t *testing.T) {
			var all []int
			t.Run("pool", func(t *testing.T) {
				p := FPM(t, fpm(t), 3, "max_execution_time=0")
				all = append(slices.Clone(p.Workers), p.Master)
				if len(p.Workers) != 3 {
					t.Fatalf("workers: %v", p.Workers)
				}
				a := p.Hang(t, Hang(t, "cpu.php-loop.php"), "")
				b := p.Hang(t, Hang(t, "sleep.php"), "id=7")
				if a == b || !slices.Contains(p.Workers, a) || !slices.Contains(p.Workers, b) {
					t.Fatalf("hang in %d and %d, workers %v", a, b, p.Workers)
				}
				before := cpuTime(t, a)
				time.Sleep(300 * time.Millisecond)
				if cpuTime(t, a) == before {
					t.Errorf("worker %d does not loop", a)
				}
			})
			for _, pid := range all {
				if syscall.Kill(pid, 0) == nil && Alive(pid) {
					t.Errorf("%d runs after its test", pid)
				}
			}
		})
	}
}

func TestFPMReportsAScriptThatEnds(t *testing.T) {
	script := filepath.Join(t.TempDir(), "ends.php")
	if err := os.WriteFile(script, []byte("<?php echo 'not so';"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := FPM(t, StrippedFPM(t), 1)
	r := recordEnd(func(tb testing.TB) { p.Hang(tb, script, "") }, t)
	if !r.fatal || !strings.Contains(r.text, "the request has ended") || !strings.Contains(r.text, "not so") {
		t.Errorf("%+v", r)
	}
}

func TestMissingToolFailsOnlyUnderCI(t *testing.T) {
	for _, ci := range []string{"", "true"} {
		t.Setenv("CI", ci)
		r := recordEnd(func(tb testing.TB) { Require(tb, "no-such-tool") }, t)
		if r.fatal != (ci == "true") || r.skip == r.fatal || !strings.Contains(r.text, "no-such-tool") {
			t.Errorf("CI=%q: %+v", ci, r)
		}
	}
}

// ended is how a test ended.
type ended struct {
	testing.TB
	fatal, skip bool
	text        string
}

func (e *ended) Fatalf(f string, a ...any) { e.fatal, e.text = true, fmt.Sprintf(f, a...); panic(e) }
func (e *ended) Skipf(f string, a ...any)  { e.skip, e.text = true, fmt.Sprintf(f, a...); panic(e) }

// recordEnd runs f as a test would, and notes how it ends the test.
func recordEnd(f func(testing.TB), t testing.TB) (e *ended) {
	e = &ended{TB: t}
	defer func() {
		if r := recover(); r != nil && r != any(e) {
			panic(r)
		}
	}()
	f(e)
	return e
}

// cpuTime is the user and system time of a process, in steps of 10 ms.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest) // from field 3 of proc(5) on; utime is 14, stime 15
	u, _ := strconv.Atoi(f[11])
	s, _ := strconv.Atoi(f[12])
	return time.Duration(u+s) * 10 * time.Millisecond
}

// countCalls counts a system call of a process with strace.
func countCalls(t *testing.T, strace string, pid int, call string, d time.Duration) int {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	cmd := exec.Command(strace, "-q", "-o", log, "-e", "trace="+call, "-p", strconv.Itoa(pid))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(d)
	_ = cmd.Process.Signal(os.Interrupt) // strace detaches
	_ = cmd.Wait()
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), call+"(")
}
