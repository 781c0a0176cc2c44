package ptrace

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAWorkerSurvivesTheTracersDeathAtEveryRequest kills the tracer as it makes
// its first ptrace request or write to the worker's memory, its second, and so
// on to the last: arming, three stops, disarming. strace does the killing. By
// default some of the requests are tried; with PTRACE_KILLS=all each of them.
func TestAWorkerSurvivesTheTracersDeathAtEveryRequest(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, c := range []struct {
		engine, mode string
	}{
		{EngineHWBP, "hot"}, {EngineHWBP, "sleep"}, {EngineHWBP, "vector"},
		{EngineInt3, "hot"}, {EngineInt3, "sleep"}, {EngineInt3, "vector"},
		{EngineSyscall, "hot"}, {EngineSyscall, "sleep"},
	} {
		for _, call := range []string{"ptrace", "pwrite64"} {
			t.Run(c.engine+"/"+c.mode+"/"+call, func(t *testing.T) {
				all := requests(t, c.engine, c.mode, call)
				if all == 0 && c.engine != EngineSyscall || all < 10 && call == "ptrace" {
					t.Fatalf("%d requests", all)
				}
				tried, dead := 0, 0
				for n := 1; n <= all; n++ {
					if os.Getenv("PTRACE_KILLS") != "all" && rand.IntN(all) >= 8 {
						continue
					}
					tried++
					w := start(t, 1, c.mode, "100")
					_ = underStrace(t, c.engine, w, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n))
					time.Sleep(20 * time.Millisecond)
					if !alive(w.pid) {
						dead++
						t.Errorf("killed at %s request %d: the worker is dead: %v", call, n, w.cmd.Wait())
						continue
					}
					w.awaitLoops(100)
					if b := w.count(bad); b != 0 {
						t.Errorf("killed at %s request %d: %d calls went wrong", call, n, b)
					}
					if blocked := statusField(w.pid, "SigBlk"); strings.Trim(blocked, "0") != "" {
						t.Errorf("killed at %s request %d: it blocks %s", call, n, blocked)
					}
					w.kill()
				}
				t.Logf("%d of %d requests, %d workers died", tried, all, dead)
			})
		}
	}
}

// requests counts the calls of one whole observation.
func requests(t *testing.T, engine, mode, call string) int {
	t.Helper()
	w := start(t, 1, mode, "100")
	defer w.kill()
	log := filepath.Join(t.TempDir(), "log")
	if err := underStrace(t, engine, w, "-o", log, "-e", "trace="+call); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), call+"(")
}

// underStrace observes three stops of a worker in a process that is traced.
func underStrace(t *testing.T, engine string, w *worker, args ...string) error {
	t.Helper()
	if args[0] != "-o" {
		args = append([]string{"-o", "/dev/null"}, args...)
	}
	spec := fmt.Sprintf("%s %d", engine, w.pid)
	for _, b := range at(t, w.pid, "mremap") {
		spec += " " + b.Addr.String()
	}
	cmd := exec.Command("strace", append(append([]string{"-f", "-qq"}, args...), "/proc/self/exe")...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[len(cmd.Args)-1] = self
	cmd.Env = append(os.Environ(), "PTRACE_TEST_TRACER="+spec, "PTRACE_TEST_STOPS=3")
	cmd.Stderr = os.Stderr
	return cmd.Run()
}
