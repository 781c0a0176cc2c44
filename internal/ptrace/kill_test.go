package ptrace

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killRounds is how often a tracer is killed per case. The figure behind the
// promise in the package comment was measured with PTRACE_KILLS=100 and more.
func killRounds(t *testing.T) int {
	n := 20
	if s := os.Getenv("PTRACE_KILLS"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// tracer is this test binary, observing a worker in a process of its own.
func tracer(t *testing.T, engine string, w *worker, env ...string) *exec.Cmd {
	t.Helper()
	spec := fmt.Sprintf("%s %d", engine, w.pid)
	for _, b := range at(t, w.pid, "mremap") {
		spec += " " + b.Addr.String()
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), "PTRACE_TEST_TRACER="+spec), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("tracer: %q, %v", line, err)
	}
	return cmd
}

func alive(pid int) bool {
	s := statusField(pid, "State")
	return s != "" && !strings.HasPrefix(s, "Z") && !strings.HasPrefix(s, "X")
}

func TestWorkerSurvivesTheTracersSIGKILL(t *testing.T) {
	for _, c := range []struct {
		name, engine string
		threads      int
		env          string
		clean        bool // the guard leaves nothing behind
	}{
		{"hwbp", EngineHWBP, 1, "", false},
		{"hwbp, many threads", EngineHWBP, 4, "", false},
		{"syscall", EngineSyscall, 1, "", true},
		{"syscall, many threads", EngineSyscall, 4, "", true},
		{"int3", EngineInt3, 1, "", true},
		{"int3, many threads", EngineInt3, 4, "", true},
		{"int3 without guard", EngineInt3, 1, "PTRACE_TEST_NOGUARD=1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rounds, dead := killRounds(t), 0
			for range rounds {
				w := start(t, c.threads, "hot")
				cmd := tracer(t, c.engine, w, c.env)
				time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				time.Sleep(20 * time.Millisecond)
				if !alive(w.pid) {
					dead++
					continue
				}
				w.awaitLoops(1000)
				if c.clean {
					awaitClean(w)
				}
				if n := w.count(bad); n != 0 {
					t.Errorf("%d calls went wrong", n)
				}
				w.kill()
			}
			t.Logf("%d of %d workers survived", rounds-dead, rounds)
			if dead != 0 {
				t.Errorf("%d of %d workers died", dead, rounds)
			}
		})
	}
}

// TestANetThatTheKernelTookAwayIsPutBack has a thread come to breakpoints with
// SIGTRAP blocked, for which the kernel resets the action: by the time the stop is
// shown it is there again, and the thread's mask ends as it was.
func TestANetThatTheKernelTookAwayIsPutBack(t *testing.T) {
	w := start(t, 1, "masking")
	sigtrap := func(field string) bool {
		m, err := strconv.ParseUint(statusField(w.pid, field), 16, 64)
		return err == nil && m&trapMask != 0
	}
	blocking, lost := 0, 0
	res, err := Observe(t.Context(), w.pid, Options{Engine: EngineInt3, For: 300 * time.Millisecond, Breakpoints: at(t, w.pid, "mremap")}, HandlerFunc(func(*Stop) Verdict {
		if statusField(w.pid, "SigBlk") != "0000000000000000" {
			blocking++
		}
		if !sigtrap("SigCgt") {
			lost++
		}
		return Continue
	}))
	if err != nil || res.Hits[0] == 0 || blocking == 0 {
		t.Fatalf("%d hits, %d of them with signals blocked: %v", res.Hits[0], blocking, err)
	}
	if lost > 0 {
		t.Errorf("at %d of %d hits SIGTRAP would have killed the worker, had nobody traced it", lost, res.Hits[0])
	}
	w.awaitLoops(100)
	w.mustBeClean()
	t.Logf("%d hits, %d of them with signals blocked", res.Hits[0], blocking)
}

// awaitClean gives the guard time for its work.
func awaitClean(w *worker) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", w.pid))
		if statusField(w.pid, "TracerPid") == "0" && textDiffers(w.t, w.pid) == 0 && !strings.Contains(string(maps), "r-xp 00000000 00:00 0 \n") {
			break
		}
	}
	w.mustBeClean()
}
