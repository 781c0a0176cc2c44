// Package testphp gives tests real PHP: which builds there are, and workers
// that run, or hang, and end with the test.
//
// Contract: what is missing skips a test with its name, and fails it where CI
// is set: a gap in the machine must not look like success.
package testphp

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Missing skips the test, or fails it under CI.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("missing: "+format, args...)
	}
	t.Skipf("missing: "+format, args...)
}

// Require finds a program.
func Require(t testing.TB, tool string) string {
	t.Helper()
	p, err := exec.LookPath(tool)
	if err != nil {
		Missing(t, "the program %s (make test installs it)", tool)
	}
	return p
}

// Root is the repository's top folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// Stripped is the distribution's php, without symbols.
func Stripped(t testing.TB) string {
	t.Helper()
	return Require(t, "php8.2")
}

// dwarfDir is where the php with debug information is installed.
func dwarfDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("PHPWHY_PHP_DIR")
	if dir == "" {
		dir = filepath.Join(Root(t), ".cache", "php", "8.2-nts")
	}
	if _, err := os.Stat(filepath.Join(dir, "bin", "php")); err != nil {
		Missing(t, "a php with debug information in %s (testdata/php/build makes it)", dir)
	}
	return dir
}

// DWARF is a php built with debug information.
func DWARF(t testing.TB) string { t.Helper(); return filepath.Join(dwarfDir(t), "bin", "php") }

// DWARFFPM is the php-fpm beside it.
func DWARFFPM(t testing.TB) string { t.Helper(); return filepath.Join(dwarfDir(t), "sbin", "php-fpm") }

// StrippedFPM is the distribution's php-fpm.
func StrippedFPM(t testing.TB) string { t.Helper(); return Require(t, "php-fpm8.2") }

// Hang is the path of a script in testdata/hang.
func Hang(t testing.TB, name string) string {
	t.Helper()
	p := filepath.Join(Root(t), "testdata", "hang", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatal(err)
	}
	return p
}

// Worker is a running process.
type Worker struct {
	PID int
	Cmd *exec.Cmd
	// Out is the worker's standard output behind its first line.
	Out *bufio.Reader
}

// memoryLimit bounds what a worker that grows may take, in KiB of address space.
const memoryLimit = 6 << 20

// Start runs a program that prints a line when it is about to hang, and
// returns when it has. It is killed when the test ends.
func Start(t testing.TB, argv ...string) *Worker {
	t.Helper()
	// The shell only sets the limit and becomes the program.
	sh := append([]string{"-c", fmt.Sprintf(`ulimit -v %d; ulimit -c 0; exec "$@"`, memoryLimit), "sh"}, argv...)
	c := exec.Command("sh", sh...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = in.Close(); _ = c.Wait() })
	w := &Worker{PID: c.Process.Pid, Cmd: c, Out: bufio.NewReader(out)}
	line := make(chan error, 1)
	go func() { _, err := w.Out.ReadString('\n'); line <- err }()
	select {
	case err := <-line:
		if err != nil {
			t.Fatalf("%s ended before it was ready: %v", strings.Join(argv, " "), err)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%s was not ready within 20 s", strings.Join(argv, " "))
	}
	return w
}

// StartHang runs a script of testdata/hang with a php.
func StartHang(t testing.TB, php, script string, args ...string) *Worker {
	t.Helper()
	argv := append([]string{php, "-n", "-d", "memory_limit=-1"}, args...)
	return Start(t, append(argv, Hang(t, script))...)
}

// Alive reports whether a process exists and has not ended.
func Alive(pid int) bool {
	s := State(pid)
	return s != "" && s != "Z" && s != "X"
}

// State is the process's state letter, "" when there is none.
func State(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	if !ok || rest == "" {
		return ""
	}
	return rest[:1]
}

// Eventually polls until cond holds, and fails the test after 10 s.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for range 1000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s did not happen within 10 s", what)
}

// Stop stops a process with SIGSTOP and waits until it stands.
func Stop(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the stop", func() bool { s := State(pid); return s == "T" || s == "t" })
}
