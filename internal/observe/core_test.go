package observe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// gdbsCore has gdb write a core of a process, which goes on.
func gdbsCore(t *testing.T, pid int, dir string) string {
	t.Helper()
	core := filepath.Join(dir, "gcore")
	out, err := exec.Command(testphp.Require(t, "gdb"), "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load no",
		"-p", fmt.Sprint(pid), "-ex", "generate-core-file "+core).CombinedOutput()
	if _, serr := os.Stat(core); serr != nil {
		t.Fatalf("gdb wrote no core: %v: %s", err, out)
	}
	return core
}

// kernelsCore ends a process so that the kernel writes its core. It is "" where
// the system sends cores elsewhere.
func kernelsCore(t *testing.T, w *testphp.Worker, dir string) string {
	t.Helper()
	if err := w.Cmd.Process.Signal(syscall.SIGSEGV); err != nil {
		t.Fatal(err)
	}
	_ = w.Cmd.Wait()
	cores, err := filepath.Glob(filepath.Join(dir, "core*"))
	if err != nil || len(cores) > 1 {
		t.Fatalf("%v, %v", cores, err)
	}
	if len(cores) == 0 {
		pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
		t.Logf("the kernel's cores go to %s; only gdb's was read", pattern)
		return ""
	}
	return cores[0]
}

// dumps starts a PHP that may dump its core into dir.
func dumps(t *testing.T, dir string, argv ...string) *testphp.Worker {
	t.Helper()
	w := testphp.StartCommand(t, append([]string{"/bin/sh", "-c", `ulimit -c unlimited && cd "$0" && exec "$@"`, dir}, argv...)...)
	time.Sleep(100 * time.Millisecond)
	return w
}

// spelled is a stack as a person reads it.
func spelled(frames []stack.Frame) string {
	var b strings.Builder
	for i := range frames {
		f := &frames[i]
		fmt.Fprintf(&b, "%s %s %s %s:%d %s\n", f.Kind, f.QualifiedName(), f.Module, f.File, f.Line, f.Opcode)
	}
	return b.String()
}

// TestACoreSaysWhatTheProcessDid compares both kinds of cores with a look at the
// process that they are of, and with gdb.
func TestACoreSaysWhatTheProcessDid(t *testing.T) {
	for _, b := range testphp.AllBuilds(t) {
		switch b.Name {
		case "stripped", "stripped with xdebug", "8.2-nts", "8.4-zts":
		default:
			continue
		}
		for _, script := range []string{"sleep.php", "recursion50.php"} {
			t.Run(b.Name+"/"+script, func(t *testing.T) {
				dir := t.TempDir()
				w := dumps(t, dir, append(append([]string{b.PHP(t)}, b.Args...), testphp.Hang(t, script))...)
				awaitState(t, w.PID, "S")
				live, err := New().Dump(context.Background(), w.PID)
				if err != nil {
					t.Fatal(err)
				}
				want := spelled(live.Stacks[0].Frames)
				cores := []string{gdbsCore(t, w.PID, dir)}
				if c := kernelsCore(t, w, dir); c != "" {
					cores = append(cores, c)
				}
				for _, core := range cores {
					c, err := New().Core(context.Background(), core, target.CoreOptions{})
					if err != nil {
						t.Fatal(err)
					}
					if len(c.Stacks) != 1 || c.Stacks[0].End != stack.Root || c.Stacks[0].Error != "" {
						t.Fatalf("%s: %+v", core, c.Stacks)
					}
					if got := spelled(c.Stacks[0].Frames); got != want {
						t.Errorf("%s:\n%swant\n%s", core, got, want)
					}
					was, is := live.Target, c.Target
					if is.PID != was.PID || is.Exe != was.Exe || is.PHPVersion != was.PHPVersion || is.ZTS != was.ZTS || is.SAPI != was.SAPI || is.Symbols != was.Symbols || is.Layout != was.Layout {
						t.Errorf("%s: target %+v, want %+v", core, is, was)
					}
					if c.Facts["php.memory_usage"] != live.Facts["php.memory_usage"] || c.Facts["php.frames"] != live.Facts["php.frames"] {
						t.Errorf("%s: facts %v, want %v", core, c.Facts, live.Facts)
					}
					// gdb's core is of a process that goes on.
					notes, wantNote := strings.Join(c.Observation.Notes, "\n"), core != cores[0]
					if strings.Contains(notes, "ended by") != wantNote || strings.Contains(notes, "signal 11") != wantNote {
						t.Errorf("%s: notes %q", core, c.Observation.Notes)
					}
					if b.Name == "8.2-nts" {
						compare(t, c.Stacks[0].Frames, gdbCore(t, b.PHP(t), core))
					}
				}
			})
		}
	}
}

func TestACoresValuesAreShownAndSecretsAreNot(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "values.php")
	writeFile(t, script, "<?php\nfunction login($user, $password) { echo \"ready\\n\"; sleep(600); }\nlogin('anna', 'hunter2');\n")
	w := dumps(t, dir, testphp.Stripped(t), "-n", script)
	core := gdbsCore(t, w.PID, dir)
	o := New()
	o.Look = Look{Values: true}
	c, err := o.Core(context.Background(), core, target.CoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shown := fmt.Sprintf("%+v", c.Stacks)
	if !strings.Contains(shown, "anna") || !strings.Contains(shown, "$password") || strings.Contains(shown, "hunter2") {
		t.Errorf("got %s", shown)
	}
}

// TestACoreIsReadWithItsOwnFilesOnly takes them from another folder, and refuses
// what is another build, is missing, or is no core at all.
func TestACoreIsReadWithItsOwnFilesOnly(t *testing.T) {
	dir := t.TempDir()
	php := filepath.Join(dir, "php")
	original, err := os.ReadFile(testphp.Stripped(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(php, original, 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	w := dumps(t, dir, php, "-n", testphp.Hang(t, "sleep.php"))
	core := gdbsCore(t, w.PID, dir)
	whole, err := os.ReadFile(core)
	if err != nil {
		t.Fatal(err)
	}
	_ = w.Cmd.Process.Kill()
	if err := os.Remove(php); err != nil {
		t.Fatal(err)
	}
	read := func(core string, opt target.CoreOptions) (*capture.Capture, error) {
		return New().Core(context.Background(), core, opt)
	}
	if _, err := read(core, target.CoreOptions{}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "--exe") {
		t.Errorf("without its program: %v", err)
	}
	if _, err := read(core, target.CoreOptions{Exe: "/bin/sh"}); !errors.Is(err, target.ErrOtherFile) {
		t.Errorf("with another program: %v", err)
	}
	if _, err := read(core, target.CoreOptions{Sysroot: dir}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with an empty root: %v", err)
	}
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, php), original, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, opt := range map[string]target.CoreOptions{"--exe": {Exe: testphp.Stripped(t)}, "--sysroot": {Sysroot: root}} {
		c, err := read(core, opt)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		// In the root there is only the program: the C library's frames have no names.
		s := &c.Stacks[0]
		if php := phpCalls(s.Frames); name == "--exe" && php != "sleep waitForever {main}" || s.Error == "" && name == "--sysroot" {
			t.Errorf("%s: %s %s\n%s", name, php, s.Error, outline(s.Frames))
		}
	}
	for name, n := range map[string]int{"cut in the middle": len(whole) / 2, "cut in the headers": 5000, "empty": 0} {
		cut := filepath.Join(dir, "cut")
		if err := os.WriteFile(cut, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := read(cut, target.CoreOptions{Exe: testphp.Stripped(t)})
		switch {
		case err == nil && !strings.Contains(strings.Join(c.Observation.Notes, "\n"), "cut off"):
			t.Errorf("%s: %q", name, c.Observation.Notes)
		case err != nil && strings.Contains(err.Error(), "\n"):
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, none := range []string{"/bin/sh", "/etc/passwd", dir} {
		if _, err := read(none, target.CoreOptions{}); !errors.Is(err, target.ErrNotCore) {
			t.Errorf("%s: %v", none, err)
		}
	}
}

// phpCalls are the names of the PHP frames.
func phpCalls(frames []stack.Frame) string {
	var out []string
	for i := range frames {
		if frames[i].Kind == stack.PHP {
			out = append(out, frames[i].Function)
		}
	}
	return strings.Join(out, " ")
}
