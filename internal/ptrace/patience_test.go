package ptrace

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// starved is a php that appends to a string, on a processor that another loop has nearly
// all the time.
func starved(t *testing.T) int {
	t.Helper()
	var cpus, last unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		t.Fatal(err)
	}
	for i := range len(cpus) * 64 {
		if cpus.IsSet(i) {
			last.Zero()
			last.Set(i)
		}
	}
	start := func(code string) int {
		cmd := exec.Command(phps(t)["distribution"], "-n", "-d", "memory_limit=-1", "-r", code)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		if err := unix.SchedSetaffinity(cmd.Process.Pid, &last); err != nil {
			t.Fatal(err)
		}
		return cmd.Process.Pid
	}
	pid := start(`while (true) { $foo = ""; for ($i = 0; $i < 20000000; $i++) $foo .= "a"; }`)
	time.Sleep(300 * time.Millisecond)
	if err := unix.SchedSetAttr(pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
		t.Fatal(err)
	}
	start(`while (true);`)
	time.Sleep(time.Second)
	return pid
}

// TestAWorkerThatHardlyRunsIsWaitedFor: it may be seconds until its next turn, and it
// stops as soon as it has one.
func TestAWorkerThatHardlyRunsIsWaitedFor(t *testing.T) {
	pid := starved(t)
	slowest := time.Duration(0)
	for range 3 {
		began := time.Now()
		if _, err := Freeze(t.Context(), pid, func(ts []ThreadStop) error { return ts[0].Err }); err != nil {
			t.Error(err)
		}
		slowest = max(slowest, time.Since(began))
	}
	for _, engine := range slices.Sorted(slices.Values(engines)) {
		began := time.Now()
		res, err := Observe(t.Context(), pid, Options{Engine: engine, Breakpoints: at(t, pid, "mmap", "mremap"), For: time.Second},
			HandlerFunc(func(*Stop) Verdict { return Continue }))
		if err != nil || res.Ended != EndDuration {
			t.Errorf("%s: %+v, %v", engine, res, err)
		}
		slowest = max(slowest, time.Since(began)-time.Second)
	}
	if slowest < stopTimeout {
		t.Logf("it never had to be waited for longer than %v", slowest)
	}
	w := &worker{t: t, pid: pid, shared: make([]byte, 4096)}
	w.mustBeClean()
}
