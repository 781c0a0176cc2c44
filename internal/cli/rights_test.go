package cli_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// asRoot skips a test that has to give rights away.
func asRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		testphp.Missing(t, "root, to run with less")
	}
	testphp.Require(t, "setpriv")
}

// defaults skips a test of what an ordinary process may do where settings
// forbid it that.
func defaults(t testing.TB) {
	t.Helper()
	if n, ok := proc.PerfParanoid(); !ok || n > proc.FreeParanoid || proc.YamaScope() > 0 {
		testphp.Missing(t, "kernel.perf_event_paranoid of at most 2, and no yama or kernel.yama.ptrace_scope=0")
	}
}

// only makes setpriv arguments for root with these capabilities alone.
func only(caps string) []string {
	return []string{"setpriv", "--bounding-set=-all" + caps, "--inh-caps=-all"}
}

// nobody makes setpriv arguments for an ordinary user with these capabilities.
func nobody(caps string) []string {
	return []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all" + caps, "--ambient-caps=-all" + caps}
}

// under runs phpwhy by another program.
func under(t testing.TB, by []string, args ...string) result {
	t.Helper()
	argv := append(append([]string{}, by...), phpwhy(t))
	c := exec.Command(argv[0], append(argv[1:], args...)...)
	return finish(t, c, begin(t, c))
}

// fallen starts a worker that has become another user, as php-fpm's do.
func fallen(t testing.TB) *testphp.Worker {
	t.Helper()
	script := filepath.Join(t.TempDir(), "fallen.php")
	text := `<?php posix_setgid(65534); posix_setuid(65534); echo "ready\n"; buildReport();
function buildReport() { $s = ''; while (true) { $s .= "a line of the report\n"; if (strlen($s) > 1 << 29) { $s = ''; } } }`
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return testphp.Start(t, testphp.Stripped(t), script, "-d", "extension=posix")
}

func TestWhatIsNotNeededIsGivenUpWhileObserving(t *testing.T) {
	asRoot(t)
	for _, engine := range []string{"hwbp", "int3"} {
		t.Run(engine, func(t *testing.T) {
			w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
			c := exec.Command(phpwhy(t), "attach", fmt.Sprint(w.PID), "--engine", engine, "--stops", "1000000", "--for", "1500ms")
			b := begin(t, c)
			observing(t, w.PID)
			time.Sleep(100 * time.Millisecond) // until the guard is there
			pids := append([]string{fmt.Sprint(c.Process.Pid)}, children(c.Process.Pid)...)
			if engine == "int3" && len(pids) != 2 {
				t.Errorf("no guard: %v", pids)
			}
			for _, pid := range pids {
				modest(t, pid)
			}
			if r := finish(t, c, b); r.code != 0 || !strings.Contains(r.out, "with "+engine) {
				t.Errorf("exit %d: %s %s", r.code, r.err, r.out)
			}
		})
	}
}

func children(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	out := strings.Fields(string(b))
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		if task == fmt.Sprintf("/proc/%d/task/%d/children", pid, pid) {
			continue
		}
		b, _ := os.ReadFile(task)
		out = append(out, strings.Fields(string(b))...)
	}
	return out
}

// modest holds that each thread of a process has no more than tracing needs.
func modest(t *testing.T, pid string) {
	t.Helper()
	threads, err := filepath.Glob("/proc/" + pid + "/task/*")
	if err != nil || len(threads) == 0 {
		t.Fatalf("%s has no threads: %v", pid, err)
	}
	for _, dir := range threads {
		b, err := os.ReadFile(dir + "/status")
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			name, v, _ := strings.Cut(strings.TrimSpace(line), ":\t")
			switch name {
			case "CapPrm", "CapEff", "CapInh", "CapAmb":
				n, err := strconv.ParseUint(v, 16, 64)
				if more := proc.CapSet(n) &^ proc.Tracing(); err != nil || more != 0 {
					t.Errorf("%s has %s in %s", dir, more.Names(), name)
				}
				if name == "CapEff" && !proc.CapSet(n).Has(proc.CapSysPtrace) {
					t.Errorf("%s has no CAP_SYS_PTRACE", dir)
				}
			case "NoNewPrivs":
				if v != "1" {
					t.Errorf("%s can get new privileges", dir)
				}
			}
		}
	}
}

func TestAStartedCommandKeepsItsRights(t *testing.T) {
	asRoot(t)
	php := testphp.Stripped(t)
	show := []string{php, "-n", "-r", `fwrite(STDERR, file_get_contents("/proc/self/status"));`}
	for name, by := range map[string][]string{
		"root": {"setpriv"}, "root with less": only(",+sys_ptrace,+net_admin"), "a user with ambient capabilities": nobody(",+sys_ptrace,+net_admin"),
	} {
		t.Run(name, func(t *testing.T) {
			c := exec.Command(by[0], append(append([]string{}, by[1:]...), show...)...)
			direct := finish(t, c, begin(t, c))
			through := under(t, by, append([]string{"attach", "--"}, show...)...)
			if through.code != 0 {
				t.Fatalf("exit %d: %s", through.code, through.err)
			}
			if got, want := rights(through.err), rights(direct.err); got != want || !strings.Contains(got, "CapEff") {
				t.Errorf("the command has\n%s\nwithout phpwhy\n%s", got, want)
			}
		})
	}
}

func rights(status string) string {
	var out []string
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") || strings.HasPrefix(line, "Seccomp") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func TestOneCapabilityIsEnough(t *testing.T) {
	asRoot(t)
	mine := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	fpm := fallen(t)
	script := filepath.Join(t.TempDir(), "mine.php")
	copyFile(t, testphp.Hang(t, "mem.string-concat.php"), script)
	openUp(t, script)
	theirs := testphp.StartCommand(t, append(nobody(""), testphp.Stripped(t), "-n", "-d", "memory_limit=-1", script)...)
	withFile := filepath.Join(t.TempDir(), "phpwhy")
	copyFile(t, phpwhy(t), withFile)
	openUp(t, withFile)
	if out, err := exec.Command(testphp.Require(t, "setcap"), "cap_sys_ptrace+ep", withFile).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	time.Sleep(grown)
	for _, tt := range []struct {
		name string
		by   []string
		bin  string
		pid  int
	}{
		{"root without others, root's worker", only(",+sys_ptrace"), phpwhy(t), mine.PID},
		{"root without others, a worker that changed its user", only(",+sys_ptrace"), phpwhy(t), fpm.PID},
		{"a user with an ambient capability, their own worker", nobody(",+sys_ptrace"), phpwhy(t), theirs.PID},
		{"a user with a file's capability, their own worker", nobody(""), withFile, theirs.PID},
		{"a user without any, their own worker", nobody(""), phpwhy(t), theirs.PID},
		{"root without CAP_SYS_PTRACE, a worker with no more", []string{"setpriv", "--bounding-set=-sys_ptrace"}, phpwhy(t), theirs.PID},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defaults(t)
			for _, args := range [][]string{{"attach", "--stops", "50"}, {"attach", "--stops", "50", "--engine", "int3"}, {"dump"}, {"dump", "--no-stop"}} {
				argv := append(append(append([]string{}, tt.by...), tt.bin), append(args, fmt.Sprint(tt.pid))...)
				c := exec.Command(argv[0], argv[1:]...)
				r := finish(t, c, begin(t, c))
				if strings.Contains(tt.name, "without CAP_SYS_PTRACE") {
					oneLine(t, r, 4, "SYS_PTRACE")
					continue
				}
				if r.code != 0 || !strings.Contains(r.out, "buildReport()") {
					t.Errorf("%v: exit %d: %s%s", args, r.code, r.err, r.out)
				}
				if len(args) == 3 && !strings.Contains(r.out, " with hwbp: ") {
					t.Errorf("auto did not take hwbp: %s", r.out)
				}
			}
		})
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// openUp lets other users reach a file of t.TempDir.
func openUp(t testing.TB, path string) {
	t.Helper()
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCapabilitiesAreKeptWhereTheKernelComparesThem: root in a container has no
// CAP_SYS_PTRACE, and may trace what has no more capabilities than itself.
func TestCapabilitiesAreKeptWhereTheKernelComparesThem(t *testing.T) {
	asRoot(t)
	defaults(t)
	less := []string{"setpriv", "--bounding-set=-sys_ptrace"}
	w := testphp.StartCommand(t, append(less, testphp.Stripped(t), "-n", "-d", "memory_limit=-1", testphp.Hang(t, "mem.string-concat.php"))...)
	time.Sleep(grown)
	if r := under(t, less, "attach", fmt.Sprint(w.PID)); r.code != 0 || !strings.Contains(r.out, "buildReport()") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if r := under(t, less, "attach", "--", testphp.Stripped(t), "-n", "-d", "memory_limit=64M", testphp.Hang(t, "mem.string-concat.php")); r.code != 0 {
		t.Errorf("a command: exit %d: %s", r.code, r.err)
	}
}

func TestTheReasonWhyAnEngineWasRefusedIsShown(t *testing.T) {
	asRoot(t)
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	time.Sleep(grown)
	rep := parse(t, under(t, filter(t, "1", sysPerfEventOpen), "attach", fmt.Sprint(w.PID), "--format", "json"))
	notes := strings.Join(rep.Notes, "\n")
	if rep.Observation.Engine != "int3" || !strings.Contains(notes, "engine hwbp does not work here") || !strings.Contains(notes, "seccomp") {
		t.Errorf("engine %s, notes %s", rep.Observation.Engine, notes)
	}
}
