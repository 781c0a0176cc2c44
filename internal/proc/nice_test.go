package proc

import (
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// niceValue is the calling thread's.
func niceValue(t *testing.T) int {
	t.Helper()
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	return 20 - n // as the system call itself returns it (getpriority(2))
}

func TestWhoWouldWaitForEverDoesNotMakeWay(t *testing.T) {
	runtime.LockOSThread() // a nice value is a thread's own
	before := niceValue(t)
	for range crowded*runtime.NumCPU() + 4 {
		loop := exec.Command("sh", "-c", "while :; do :; done")
		if err := loop.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = loop.Process.Kill(); _ = loop.Wait() }()
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n, ok := running(); !ok || time.Now().After(end) {
			t.Fatalf("%d threads run, %v", n, ok)
		} else if n > crowded*runtime.NumCPU()+2 {
			break
		}
	}
	MakeWay()
	if now := niceValue(t); now != before {
		t.Errorf("beside loops that have every processor its nice value is %d, and was %d", now, before)
	}
}
