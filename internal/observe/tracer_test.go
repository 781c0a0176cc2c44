package observe

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// TestATracerThatLetsTheWorkerGoOnDoesNotHoldIt looks at a worker that is at a stop of
// strace nearly all the time, and runs between the stops all the same; and at one
// that strace, stopped itself, really holds.
func TestATracerThatLetsTheWorkerGoOnDoesNotHoldIt(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	s := exec.Command(testphp.Require(t, "strace"), "-qq", "-e", "trace=none", "-p", fmt.Sprint(w.PID))
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = s.Process.Signal(syscall.SIGCONT)
		_ = s.Process.Signal(syscall.SIGINT)
		_ = s.Wait()
	}()
	look := func() (state string, tracer int64) {
		c, err := New().Sample(context.Background(), w.PID)
		if err != nil {
			t.Fatal(err)
		}
		state, _ = c.Facts["proc.state"].(string)
		tracer, _ = c.Facts["proc.tracer_pid"].(int64)
		return state, tracer
	}
	for range 1000 {
		if _, tracer := look(); tracer != 0 {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	between := 0
	for range 100 {
		if testphp.State(t, w.PID) == "t" {
			between++
		}
		if st, tracer := look(); st == "t" || tracer != int64(s.Process.Pid) {
			t.Fatalf("state %s, traced by %d; strace is %d", st, tracer, s.Process.Pid)
		}
	}
	if between == 0 {
		t.Error("the worker was never at a stop of strace, so that nothing was tried")
	}
	if err := s.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	awaitState(t, s.Process.Pid, "T")
	awaitState(t, w.PID, "t") // at its next system call
	if st, tracer := look(); st != "t" || tracer != int64(s.Process.Pid) {
		t.Errorf("state %s, traced by %d, which is stopped itself; strace is %d", st, tracer, s.Process.Pid)
	}
}
