package cli_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// System calls that a filter takes away.
var (
	sysPerfEventOpen = fmt.Sprint(syscall.SYS_PERF_EVENT_OPEN)
	sysPtrace        = fmt.Sprint(syscall.SYS_PTRACE)
)

var filterOnce = sync.OnceValues(func() (string, error) {
	bin, err := buildOnce()
	if err != nil {
		return "", err
	}
	out := filepath.Join(filepath.Dir(bin), "filter")
	if text, err := exec.Command("gcc", "-o", out, "testdata/filter.c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return out, nil
})

// filter runs a program without some system calls.
func filter(t testing.TB, errno string, calls ...string) []string {
	t.Helper()
	testphp.Require(t, "gcc")
	bin, err := filterOnce()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{bin, errno}, calls...)
}

func diagnosis(t testing.TB, r result) report.Doctor {
	t.Helper()
	var d report.Doctor
	dec := json.NewDecoder(strings.NewReader(r.out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatalf("exit %d, stderr %q: %v: %s", r.code, r.err, err, r.out)
	}
	return d
}

func engineOf(t testing.TB, es []report.EngineState, name string) report.EngineState {
	t.Helper()
	i := slices.IndexFunc(es, func(e report.EngineState) bool { return e.Engine == name })
	if i < 0 {
		t.Fatalf("no %s in %+v", name, es)
	}
	return es[i]
}

// states is "hwbp=yes int3=yes …".
func states(es []report.EngineState) string {
	var out []string
	for _, e := range es {
		out = append(out, e.Engine+"="+string(e.State))
	}
	return strings.Join(out, " ")
}

func TestDoctorTriesTheEngines(t *testing.T) {
	asRoot(t)
	for _, tt := range []struct {
		name   string
		by     []string
		code   int
		auto   string
		states string
		engine string // whose reason or remedy says
		say    string
	}{
		{"root", []string{"setpriv"}, 0, "hwbp", "hwbp=yes int3=yes uprobe=yes syscall=yes no-stop=yes", "hwbp", "3 times"},
		{"root with CAP_SYS_PTRACE alone", only(",+sys_ptrace"), 0, "hwbp", "hwbp=yes int3=yes uprobe=no syscall=yes no-stop=yes", "uprobe", "CAP_SYS_ADMIN"},
		{"root without CAP_SYS_PTRACE", []string{"setpriv", "--bounding-set=-sys_ptrace"}, 0, "hwbp", "hwbp=partly int3=partly uprobe=partly syscall=partly no-stop=partly", "int3", "CAP_SYS_PTRACE"},
		{"a user", nobody(""), 0, "hwbp", "hwbp=partly int3=partly uprobe=no syscall=partly no-stop=partly", "hwbp", "uid 65534"},
		{"no perf events", filter(t, "1", sysPerfEventOpen), 0, "int3", "hwbp=no int3=yes uprobe=no syscall=yes no-stop=yes", "hwbp", "a seccomp filter forbids perf_event_open"},
		{"no perf events, as some profiles say it", filter(t, "38", sysPerfEventOpen), 0, "int3", "hwbp=no int3=yes uprobe=no syscall=yes no-stop=yes", "hwbp", "seccomp"},
		{"no ptrace", filter(t, "1", sysPtrace), 4, "", "hwbp=no int3=no uprobe=yes syscall=no no-stop=yes", "int3", "seccomp"},
		{"nothing", filter(t, "1", sysPtrace, sysPerfEventOpen), 4, "", "hwbp=no int3=no uprobe=no syscall=no no-stop=yes", "uprobe", "seccomp"},
		{"a user namespace", []string{"unshare", "-Ur"}, 0, "hwbp", "hwbp=partly int3=partly uprobe=no syscall=partly no-stop=partly", "hwbp", "user namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.by[0] != "setpriv" || len(tt.by) > 1 {
				defaults(t)
			}
			r := under(t, tt.by, "doctor", "--format", "json")
			d := diagnosis(t, r)
			if r.code != tt.code || d.Auto != tt.auto {
				t.Errorf("exit %d, want %d; auto %q, want %q; stderr %s", r.code, tt.code, d.Auto, tt.auto, r.err)
			}
			if got := states(d.Engines); got != tt.states {
				t.Errorf("got  %s\nwant %s", got, tt.states)
			}
			if e := engineOf(t, d.Engines, tt.engine); !strings.Contains(e.Why+" "+e.Remedy, tt.say) {
				t.Errorf("%+v does not say %q", e, tt.say)
			}
			if tt.code == 4 && (strings.Count(r.err, "\n") != 1 || !strings.HasPrefix(r.err, "phpwhy: ")) {
				t.Errorf("stderr is not one line: %q", r.err)
			}
		})
	}
}

func TestDoctorLooksAtAWorker(t *testing.T) {
	asRoot(t)
	hang := testphp.Hang(t, "mem.string-concat.php")
	gone := filepath.Join(t.TempDir(), "php8.2")
	copyFile(t, testphp.Stripped(t), gone)
	for _, tt := range []struct {
		name  string
		start func(testing.TB) int
		auto  string
		check func(testing.TB, *report.DoctorTarget)
	}{
		{"stripped", func(t testing.TB) int { return testphp.Start(t, testphp.Stripped(t), hang).PID }, "hwbp", func(t testing.TB, d *report.DoctorTarget) {
			if d.SAPI != "cli" || d.Symbols != "dynsym" || d.Layout != "builtin" || d.Libc != "glibc" || d.JIT || d.Xdebug || d.ZTS || d.Debug {
				t.Errorf("%+v", d)
			}
		}},
		{"DWARF", func(t testing.TB) int { return testphp.Start(t, testphp.DWARF(t), hang).PID }, "hwbp", func(t testing.TB, d *report.DoctorTarget) {
			if d.Symbols != "dwarf" || d.Layout != "dwarf" {
				t.Errorf("%+v", d)
			}
		}},
		{"xdebug", func(t testing.TB) int {
			return testphp.Start(t, testphp.Stripped(t), hang, "-d", "zend_extension=xdebug").PID
		}, "hwbp", func(t testing.TB, d *report.DoctorTarget) {
			if !d.Xdebug {
				t.Errorf("%+v", d)
			}
		}},
		{"JIT", func(t testing.TB) int {
			return testphp.Start(t, testphp.Stripped(t), hang, "-d", "zend_extension=opcache", "-d", "opcache.enable_cli=1", "-d", "opcache.jit_buffer_size=16M").PID
		}, "hwbp", func(t testing.TB, d *report.DoctorTarget) {
			if !d.JIT {
				t.Errorf("%+v", d)
			}
		}},
		{"deleted", func(t testing.TB) int {
			w := testphp.Start(t, gone, hang)
			if err := os.Remove(gone); err != nil {
				t.Fatal(err)
			}
			return w.PID
		}, "hwbp", func(t testing.TB, d *report.DoctorTarget) {
			if !slices.Equal(d.Deleted, []string{gone}) || d.PHP == "" {
				t.Errorf("%+v", d)
			}
		}},
		{"another user's, in other namespaces", func(t testing.TB) int {
			return testphp.StartCommand(t, "unshare", "-m", testphp.Stripped(t), "-n", "-d", "memory_limit=-1", "-d", "extension=posix", "-r",
				`posix_setuid(65534); echo "ready\n"; while (true);`).PID
		}, "hwbp", func(t testing.TB, d *report.DoctorTarget) {
			if d.UID != 65534 || !slices.Equal(d.OtherNS, []string{"mnt"}) {
				t.Errorf("%+v", d)
			}
		}},
		{"with a filter", func(t testing.TB) int {
			argv := append(filter(t, "1", sysPtrace), testphp.Stripped(t), "-n", "-d", "memory_limit=-1", hang)
			return testphp.StartCommand(t, argv...).PID
		}, "hwbp", func(t testing.TB, d *report.DoctorTarget) {
			if d.Seccomp != 2 {
				t.Errorf("%+v", d)
			}
		}},
		{"stopped", func(t testing.TB) int {
			w := testphp.Start(t, testphp.Stripped(t), hang)
			if err := syscall.Kill(w.PID, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			return w.PID
		}, "hwbp", func(testing.TB, *report.DoctorTarget) {}},
		{"with a handler for SIGTRAP", func(t testing.TB) int {
			return testphp.StartCommand(t, testphp.Stripped(t), "-n", "-d", "memory_limit=-1", "-r",
				`pcntl_signal(SIGTRAP, function () {}); echo "ready\n"; while (true);`).PID
		}, "hwbp", func(t testing.TB, d *report.DoctorTarget) {
			if e := engineOf(t, d.Engines, "int3"); e.State != report.Fails || !strings.Contains(e.Why, "SIGTRAP") {
				t.Errorf("%+v", e)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pid := tt.start(t)
			r := run(t, "doctor", fmt.Sprint(pid), "--format", "json")
			d := diagnosis(t, r).Target
			if r.code != 0 || d == nil || d.PID != pid || d.Auto != tt.auto || !strings.HasPrefix(d.PHP, "8.2.") {
				t.Fatalf("exit %d: %s: %+v", r.code, r.err, d)
			}
			tt.check(t, d)
			if s := status(pid, "TracerPid"); s != "0" || !testphp.Alive(pid) {
				t.Errorf("the worker is traced by %s", s)
			}
		})
	}
}

func TestDoctorSaysWhatIsWrongWithAProcess(t *testing.T) {
	asRoot(t)
	sleep := testphp.StartCommand(t, "sh", "-c", "echo ready; exec sleep 1000")
	zombie := testphp.StartCommand(t, "sh", "-c", "echo ready")
	traced := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	c := exec.Command(testphp.Require(t, "strace"), "-o", "/dev/null", "-p", fmt.Sprint(traced.PID))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	observing(t, traced.PID)
	awaitZombie(t, zombie.PID)
	for _, tt := range []struct {
		name string
		by   []string
		pid  int
		code int
		say  string
	}{
		{"no such process", []string{"setpriv"}, 999999999, 3, "no such process"},
		{"a zombie", []string{"setpriv"}, zombie.PID, 3, "zombie"},
		{"not PHP", []string{"setpriv"}, sleep.PID, 3, "not PHP"},
		{"traced", []string{"setpriv"}, traced.PID, 4, fmt.Sprintf("traced by %d (\"strace\")", c.Process.Pid)},
		{"no capability at all", only(""), sleep.PID, 4, "CAP_SYS_PTRACE"},
		{"another user's", nobody(""), sleep.PID, 4, "run as root"},
		{"root without CAP_SYS_PTRACE", []string{"setpriv", "--bounding-set=-sys_ptrace"}, sleep.PID, 4, "--cap-add SYS_PTRACE"},
		{"outside of a user namespace", []string{"unshare", "-Ur"}, sleep.PID, 4, "user namespace"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := under(t, tt.by, "doctor", fmt.Sprint(tt.pid), "--format", "json")
			if r.code != tt.code || !strings.Contains(r.err, tt.say) || strings.Count(r.err, "\n") != 1 {
				t.Errorf("exit %d, want %d with %q: %s", r.code, tt.code, tt.say, r.err)
			}
			if d := diagnosis(t, r); d.Target == nil || d.Target.Auto != "" || !slices.ContainsFunc(d.Target.Checks, func(c report.Check) bool { return c.State == report.Fails }) {
				t.Errorf("nothing is wrong with it: %+v", d.Target)
			}
		})
	}
	// A mount of their own, so that nobody else's /proc hides anything.
	hide := append([]string{"unshare", "-m", "sh", "-c", `mount -t proc -o hidepid=2 proc /proc && exec "$@"`, "sh"}, nobody("")...)
	for _, cmd := range []string{"doctor", "dump", "attach"} {
		if r := under(t, hide, cmd, fmt.Sprint(traced.PID)); r.code != 4 || !strings.Contains(r.err, "hidepid") {
			t.Errorf("%s of a hidden process: exit %d: %s", cmd, r.code, r.err)
		}
	}
	if b, _ := os.ReadFile("/proc/2/comm"); string(b) == "kthreadd\n" {
		if r := run(t, "doctor", "2"); r.code != 3 || !strings.Contains(r.err, "kernel thread") {
			t.Errorf("a kernel thread: exit %d: %s", r.code, r.err)
		}
	}
}

func TestDoctorsTableFitsATerminalAndObeysNoTarget(t *testing.T) {
	asRoot(t)
	evil := filepath.Join(t.TempDir(), "php8.2\x1b[31m\u202e\r")
	copyFile(t, testphp.Stripped(t), evil)
	w := testphp.Start(t, evil, testphp.Hang(t, "mem.string-concat.php"))
	if err := os.Remove(evil); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"doctor"}, {"doctor", fmt.Sprint(w.PID)}, {"doctor", fmt.Sprint(w.PID), "--format", "json"}} {
		r := run(t, args...)
		if r.code != 0 {
			t.Fatalf("%v: exit %d: %s", args, r.code, r.err)
		}
		for line := range strings.Lines(r.out) {
			line = strings.TrimSuffix(line, "\n")
			if strings.ContainsFunc(line, func(c rune) bool { return unicode.IsControl(c) || unicode.Is(unicode.Cf, c) }) {
				t.Errorf("control bytes in %q", line)
			}
			if len(args) < 3 && utf8.RuneCountInString(line) > 80 && strings.Contains(strings.TrimSpace(line), " ") && !strings.Contains(line, "testdata") && !strings.Contains(line, t.TempDir()[:5]) {
				t.Errorf("%d columns: %q", utf8.RuneCountInString(line), line)
			}
			if strings.HasSuffix(line, " ") {
				t.Errorf("a space at the end of %q", line)
			}
		}
	}
}
