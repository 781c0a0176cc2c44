package testphp

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Build is a PHP to test with.
type Build struct {
	Name string
	PHP  func(testing.TB) string
	Args []string // before the script
}

// StrippedBuilds are Debian's PHP, also with the extensions that change how
// PHP code is executed.
var StrippedBuilds = []Build{
	{"stripped", Stripped, []string{"-n"}},
	{"stripped with xdebug", Stripped, []string{"-n", "-d", "zend_extension=xdebug", "-d", "xdebug.mode=develop"}},
	{"stripped with opcache", Stripped, withOpcache("opcache")},
	{"stripped with a function JIT", Stripped, withOpcache("opcache", jit("1205")...)},
	{"stripped with a tracing JIT", Stripped, withOpcache("opcache", jit("1254")...)},
}

func withOpcache(ext string, more ...string) []string {
	return append([]string{"-n", "-d", "zend_extension=" + ext, "-d", "opcache.enable_cli=1"}, more...)
}

// jit turns the JIT on. 1205 compiles every function when the script is
// loaded; 1254 compiles what runs often, which is made to be at once.
func jit(mode string) []string {
	return []string{"-d", "opcache.jit_buffer_size=32M", "-d", "opcache.jit=" + mode,
		"-d", "opcache.jit_hot_func=1", "-d", "opcache.jit_hot_loop=1", "-d", "opcache.jit_hot_return=1"}
}

// AllBuilds are Debian's and every one that was built from source; of a
// thread-safe one also a stripped copy.
func AllBuilds(t testing.TB) []Build {
	t.Helper()
	out := append([]Build(nil), StrippedBuilds...)
	for _, dir := range Builds(t) {
		php := filepath.Join(dir, "bin", "php")
		b := Build{filepath.Base(dir), func(testing.TB) string { return php }, []string{"-n"}}
		out = append(out, b)
		if strings.Contains(b.Name, "zts") {
			out = append(out, strippedCopy(t, b))
		}
		if exts, err := filepath.Glob(filepath.Join(dir, "lib/php/extensions/*/zend_test.so")); err == nil && len(exts) == 1 {
			out = append(out, Build{b.Name + " with observers", b.PHP, []string{"-n", "-d", "extension=" + exts[0],
				"-d", "zend_test.observer.enabled=1", "-d", "zend_test.observer.observe_all=1", "-d", "zend_test.observer.show_output=0"}})
		}
		if exts, err := filepath.Glob(filepath.Join(dir, "lib/php/extensions/*/opcache.so")); err == nil && len(exts) == 1 {
			out = append(out, Build{b.Name + " with opcache", b.PHP, withOpcache(exts[0])})
			if b.Version(t) >= "8.0" {
				out = append(out,
					Build{b.Name + " with a function JIT", b.PHP, withOpcache(exts[0], jit("1205")...)},
					Build{b.Name + " with a tracing JIT", b.PHP, withOpcache(exts[0], jit("1254")...)})
			}
		}
	}
	return out
}

func strippedCopy(t testing.TB, b Build) Build {
	t.Helper()
	php := filepath.Join(t.TempDir(), "php")
	if out, err := exec.Command(Require(t, "strip"), "-s", "-o", php, b.PHP(t)).CombinedOutput(); err != nil {
		t.Fatalf("strip: %v: %s", err, out)
	}
	return Build{b.Name + " stripped", func(testing.TB) string { return php }, b.Args}
}

// Version is "8.2".
func (b Build) Version(t testing.TB) string {
	t.Helper()
	out, err := exec.Command(b.PHP(t), "-n", "-r", "echo PHP_MAJOR_VERSION, '.', PHP_MINOR_VERSION;").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

var sinceVersion = regexp.MustCompile(`PHP (\d\.\d) or later\.`)

// BacktraceScripts returns the scripts that print what debug_backtrace() says
// and then block, as far as that version of PHP can run them.
func BacktraceScripts(t testing.TB, version string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(Root(t), "internal/zend/testdata/*.php"))
	if err != nil || len(all) < 5 {
		t.Fatalf("%d scripts, %v", len(all), err)
	}
	var out []string
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if m := sinceVersion.FindSubmatch(b); strings.HasPrefix(filepath.Base(f), "_") || m != nil && string(m[1]) > version {
			continue
		}
		out = append(out, f)
	}
	return out
}

// Entry is one entry of debug_backtrace(): a call, and the place it was made at.
type Entry struct {
	Function, Class, File string
	Line                  int
}

// Entries decodes the line that a backtrace script prints.
func Entries(t testing.TB, line string) []Entry {
	t.Helper()
	var out []Entry
	if err := json.Unmarshal([]byte(line), &out); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return out
}

// Blocked starts a script that prints one line and then waits for its standard
// input, and returns once it does, with the line.
func Blocked(t testing.TB, b Build, script string) (pid int, line string) {
	t.Helper()
	c := exec.Command(b.PHP(t), append(append([]string{}, b.Args...), script)...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.StdinPipe() // what the script blocks on
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = in.Close(); _ = c.Wait() })
	line, err = bufio.NewReaderSize(out, 1<<20).ReadString('\n')
	if err != nil {
		t.Fatalf("%s printed %q: %v", script, line, err)
	}
	awaitAsleep(t, c.Process.Pid)
	return c.Process.Pid, line
}

// awaitAsleep waits until the process waits, and for the right thing: state S
// is also that of a process whose output a pipe has no room for.
func awaitAsleep(t testing.TB, pid int) {
	t.Helper()
	deadline := time.Now().Add(readyTimeout)
	for time.Now().Before(deadline) {
		if State(t, pid) == "S" {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the script does not block")
}

// State is the process's state as /proc has it: R, S, T and so on.
func State(t testing.TB, pid int) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	if !ok || rest == "" {
		t.Fatalf("/proc/%d/stat: %q", pid, b)
	}
	return rest[:1]
}

// Stop stops a process with SIGSTOP and waits until it stands still.
func Stop(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		if State(t, pid) == "T" {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("the process does not stop")
}
