package testphp

import (
	"fmt"
	"os/exec"
	"runtime"
	"testing"
)

// Starve gives a process's processor to another loop, nearly all the time, for as long
// as the test runs.
func Starve(t testing.TB, pid int) {
	t.Helper()
	last := fmt.Sprint(runtime.NumCPU() - 1)
	for _, args := range [][]string{{"taskset", "-pc", last, fmt.Sprint(pid)}, {"chrt", "-i", "-p", "0", fmt.Sprint(pid)}} {
		if out, err := exec.Command(Require(t, args[0]), args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	loop := exec.Command("taskset", "-c", last, Stripped(t), "-n", "-r", "while (true);")
	if err := loop.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loop.Process.Kill(); _ = loop.Wait() })
}
