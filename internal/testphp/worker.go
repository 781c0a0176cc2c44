package testphp

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Bounds for a worker that outlives its test, and for waiting for one.
const (
	memoryLimitKiB = 4 << 20 // of address space
	cpuLimitSec    = 300
	readyTimeout   = 20 * time.Second
)

// Worker is a running php.
type Worker struct {
	PID    int
	Cmd    *exec.Cmd // started, not waited for
	stderr string    // file with what it wrote there
}

// Start runs "php -n -d memory_limit=-1 ARGS... script" and returns when the
// script has printed its line "ready". The worker is killed when the test ends.
func Start(t testing.TB, php, script string, args ...string) *Worker {
	t.Helper()
	argv := append([]string{php, "-n", "-d", "memory_limit=-1"}, args...)
	return StartCommand(t, append(argv, script)...)
}

// StartCommand does what Start does for any command that prints "ready".
func StartCommand(t testing.TB, argv ...string) *Worker {
	t.Helper()
	return StartReading(t, nil, argv...)
}

// StartReading is StartCommand with a file as standard input.
func StartReading(t testing.TB, stdin *os.File, argv ...string) *Worker {
	t.Helper()
	w := &Worker{Cmd: limited(argv), stderr: filepath.Join(t.TempDir(), "stderr")}
	errs, err := os.Create(w.stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer errs.Close()
	w.Cmd.Stderr = errs
	if stdin != nil { // a nil *os.File is no nil reader
		w.Cmd.Stdin = stdin
	}
	// Not StdoutPipe: Wait closes that one, and a Wait is the test's to place.
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	w.Cmd.Stdout = out
	err = w.Cmd.Start()
	_ = out.Close()
	if err != nil {
		t.Fatal(err)
	}
	w.PID = w.Cmd.Process.Pid
	t.Cleanup(w.Kill)
	_ = r.SetReadDeadline(time.Now().Add(readyTimeout))
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q printed %q (%v), not ready; stderr: %s", argv, line, err, w.Stderr())
	}
	settle()
	return w
}

// Kill ends the worker. Calling it again does nothing.
func (w *Worker) Kill() {
	_ = w.Cmd.Process.Kill()
	_ = w.Cmd.Wait()
}

// Stderr returns what the worker has written to its standard error.
func (w *Worker) Stderr() string {
	b, err := os.ReadFile(w.stderr)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// Alive reports whether a process runs, waits or is stopped, but has not ended.
func Alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest != "" && !strings.ContainsRune("ZX", rune(rest[0]))
}

// limited makes a command that runs under the limits in the same process, so
// that its pid is the worker's. The limits are the shell's work because a
// process can't set them in its child without touching its own.
func limited(argv []string) *exec.Cmd {
	set := fmt.Sprintf(`ulimit -v %d && ulimit -t %d && exec "$@"`, memoryLimitKiB, cpuLimitSec)
	return exec.Command("/bin/sh", append([]string{"-c", set, "sh"}, argv...)...)
}

// settle gives a worker that has just said "ready" the time to return from
// the write and to enter the function where it hangs.
func settle() { time.Sleep(20 * time.Millisecond) }
