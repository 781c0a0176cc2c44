package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// Where things are in the containers of these tests.
const (
	inPHP    = "/usr/bin/php8.2"
	inScript = "/srv/app/report.php"
	inPHPWhy = "/phpwhy"
	inLibc   = "/lib/x86_64-linux-gnu/libc.so.6"
)

// sight is a place from which a process in a container can be looked at.
type sight struct {
	name    string
	outside bool
	flags   []string // of box exec
	side    bool     // with files of its own
	engine  string   // that auto must come to
}

// CAP_SYS_PTRACE is all that phpwhy has in these, but for the first. What is
// refused without CAP_CHECKPOINT_RESTORE is refused in all of them.
var sights = []sight{
	{name: "outside", outside: true},
	{name: "inside", flags: nil},
	{name: "inside without perf", flags: []string{"-s"}, engine: "int3"},
	{name: "a sidecar without perf", flags: []string{"-s"}, side: true, engine: "int3"},
}

// from runs phpwhy on a container's first process.
func (s sight) from(t *testing.T, c *testphp.Container, args ...string) result {
	t.Helper()
	pid := "1"
	if s.outside {
		pid = fmt.Sprint(c.PID)
	}
	return s.run(t, c, append(args, pid)...)
}

func (s sight) run(t *testing.T, c *testphp.Container, args ...string) result {
	t.Helper()
	if s.outside {
		return run(t, args...)
	}
	flags := s.flags
	if s.side {
		tree := testphp.Tree(t, nil, map[string]string{inPHPWhy: phpwhy(t)})
		flags = append(slices.Clone(flags), "-r", tree)
	}
	cmd := c.Beside(flags, append([]string{inPHPWhy}, args...)...)
	return finish(t, cmd, begin(t, cmd))
}

// hostTree is a small root with Debian's php and phpwhy.
func hostTree(t *testing.T, script string) string {
	t.Helper()
	return testphp.Tree(t, []string{testphp.Stripped(t)}, map[string]string{
		inScript: testphp.Hang(t, script), inPHPWhy: phpwhy(t),
		// Debian's PHP warns when it has no time zone.
		"/usr/share/zoneinfo/UTC": "/usr/share/zoneinfo/UTC",
	})
}

func startPHP(t *testing.T, is testphp.Isolation, trees []string, php string) *testphp.Container {
	t.Helper()
	return testphp.StartContainer(t, is, trees, php, "-n", "-d", "memory_limit=-1", inScript)
}

// wantConcat checks that the report names mem.string-concat at its very line.
func wantConcat(t *testing.T, s sight, r result) reported {
	t.Helper()
	rep := parse(t, r)
	if r.code != 0 || len(rep.Findings) == 0 {
		t.Fatalf("exit %d, findings %+v, notes %q, stderr %q", r.code, rep.Findings, rep.Notes, r.err)
	}
	line := lineOf(t, testphp.Hang(t, "mem.string-concat.php"), ".= ")
	f := rep.Findings[0]
	if f.Rule != "mem.string-concat" || f.PHP.Function != "buildReport" || f.PHP.File != inScript || f.PHP.Line != line {
		t.Errorf("found %+v, want mem.string-concat in buildReport() at %s:%d; notes %q", f, inScript, line, rep.Notes)
	}
	if s.engine != "" && rep.Observation.Engine != s.engine {
		t.Errorf("engine %s, want %s; notes %q", rep.Observation.Engine, s.engine, rep.Notes)
	}
	return rep
}

// wantDump checks that one look finds PHP's and native frames down to the root.
func wantDump(t *testing.T, r result, function, file string) reported {
	t.Helper()
	rep := parse(t, r)
	if r.code != 0 || len(rep.Stacks) != 1 {
		t.Fatalf("exit %d, stderr %q, %d stacks", r.code, r.err, len(rep.Stacks))
	}
	st := rep.Stacks[0]
	if st.End != "root" || st.Error != "" {
		t.Errorf("the stack ends with %s: %s", st.End, st.Error)
	}
	var have []string
	for _, f := range st.Frames {
		have = append(have, f.Kind+" "+f.Function)
		if f.Kind == "php" && f.Function == function && f.File != file {
			t.Errorf("%s is in %s, want %s", f.Function, f.File, file)
		}
	}
	for _, want := range []string{"php " + function, "native execute_ex"} {
		if !slices.Contains(have, want) {
			t.Errorf("no %s in %q", want, have)
		}
	}
	return rep
}

func TestAWorkerInAContainerIsDiagnosedFromEverywhere(t *testing.T) {
	tree := hostTree(t, "mem.string-concat.php")
	// The simplest and the most; make containers has all of them.
	for _, is := range []testphp.Isolation{testphp.Isolations[0], testphp.Isolations[3]} {
		t.Run(is.Name, func(t *testing.T) {
			c := startPHP(t, is, []string{tree}, inPHP)
			time.Sleep(grown)
			for _, s := range sights {
				t.Run(s.name, func(t *testing.T) {
					wantConcat(t, s, s.from(t, c, "attach", "--format", "json"))
					wantDump(t, s.from(t, c, "dump", "--format", "json"), "buildReport", inScript)
				})
			}
			if !testphp.Alive(c.PID) {
				t.Error("the worker has ended")
			}
		})
	}
}

// A package upgrade replaces the program and its libraries under a worker that
// runs on. Other files are then where its mappings say.
func TestReplacedFilesAreReadAsTheWorkerRunsThem(t *testing.T) {
	tree := hostTree(t, "mem.string-concat.php")
	c := startPHP(t, testphp.Isolations[0], []string{tree}, inPHP)
	// ELF files both, with other code and other symbols.
	c.Put(t, "/bin/ls", inPHP)
	c.Put(t, "/lib/x86_64-linux-gnu/libm.so.6", inLibc)
	time.Sleep(grown)
	for _, s := range sights {
		t.Run(s.name, func(t *testing.T) {
			rep := wantConcat(t, s, s.from(t, c, "attach", "--format", "json"))
			wantDump(t, s.from(t, c, "dump", "--format", "json"), "buildReport", inScript)
			told := slices.ContainsFunc(rep.Notes, func(n string) bool { return strings.Contains(n, "libc.so.6 was read from the worker's memory") })
			if told == s.outside {
				t.Errorf("libc read from memory: %v; notes %q", told, rep.Notes)
			}
		})
	}
}

// A container brings its own debug files. Its links lead to its own files, not
// to this machine's.
func TestDebugFilesOfTheContainerAreFound(t *testing.T) {
	dir := t.TempDir()
	stripped, debug := filepath.Join(dir, "php"), filepath.Join(dir, "php.debug")
	for _, c := range [][]string{
		{"objcopy", "--only-keep-debug", testphp.DWARF(t), debug},
		{"objcopy", "--strip-all", testphp.DWARF(t), stripped},
	} {
		if out, err := exec.Command(testphp.Require(t, c[0]), c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	id := buildID(t, stripped)
	libs := testphp.Tree(t, []string{testphp.DWARF(t)}, nil)
	for _, tt := range []struct{ name, file, want string }{
		{"the right one", debug, "dwarf"},
		{"another build's", filepath.Join(testphp.Root(t), ".cache/php/8.4-zts/bin/php"), "dynsym"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := testphp.Tree(t, nil, map[string]string{
				inPHP: stripped, "/opt/php.debug": tt.file, inScript: testphp.Hang(t, "sleep.php"), inPHPWhy: phpwhy(t),
			})
			link := filepath.Join(tree, "usr/lib/debug/.build-id", id[:2], id[2:]+".debug")
			if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/opt/php.debug", link); err != nil {
				t.Fatal(err)
			}
			c := startPHP(t, testphp.Isolations[1], []string{tree, libs}, inPHP)
			for _, s := range sights {
				t.Run(s.name, func(t *testing.T) {
					rep := wantDump(t, s.from(t, c, "dump", "--format", "json"), "waitForever", inScript)
					if rep.Target.Symbols != tt.want {
						t.Errorf("symbols from %s, want %s", rep.Target.Symbols, tt.want)
					}
				})
			}
		})
	}
}

func buildID(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command(testphp.Require(t, "readelf"), "-n", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(string(out), "Build ID: ")
	id, _, _ = strings.Cut(id, "\n")
	if len(id) < 8 {
		t.Fatalf("%s has no build-id: %s", path, out)
	}
	return id
}

// A worker that is not root's: its own user may look at it without any
// capability, another one needs CAP_SYS_PTRACE.
func TestWhoMayLookAtAUsersWorker(t *testing.T) {
	tree := hostTree(t, "mem.string-concat.php")
	c := startPHP(t, testphp.Isolation{UID: 33}, []string{tree}, inPHP)
	time.Sleep(grown)
	for _, tt := range []struct {
		name string
		sight
		refused string
	}{
		{"root with the capabilities of a container and CAP_SYS_PTRACE", sight{flags: []string{"-s", "-d"}, engine: "int3"}, ""},
		{"root with CAP_SYS_PTRACE alone", sight{flags: []string{"-s"}}, "its /proc files belong to uid 33 and this runs as uid 0, without CAP_DAC_OVERRIDE"},
		{"the same user", sight{flags: []string{"-s", "-g", "33"}, engine: "int3"}, ""},
		{"root without any capability", sight{flags: []string{"-s", "-n"}}, "in a container add the capability SYS_PTRACE"},
		{"another user", sight{flags: []string{"-s", "-g", "34"}}, "run as root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && slices.Contains(tt.flags, "33") && strings.TrimSpace(string(b)) != "0" {
				t.Skip("yama's ptrace_scope forbids it here")
			}
			r := tt.from(t, c, "attach", "--format", "json")
			if tt.refused != "" {
				oneLine(t, r, 4, tt.refused)
				return
			}
			wantConcat(t, tt.sight, r)
		})
	}
}

// What is left behind by a phpwhy that was killed inside is cleared by its
// guard, which has no more rights than it had.
func TestKilledInAContainerItLeavesTheWorkerWell(t *testing.T) {
	c := startPHP(t, testphp.Isolations[1], []string{hostTree(t, "mem.string-concat.php")}, inPHP)
	time.Sleep(grown)
	s := sight{flags: []string{"-s"}, engine: "int3"}
	cmd := c.Beside(s.flags, inPHPWhy, "attach", "--for", "30s", "--stops", "1000000", "1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	observing(t, c.PID)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatalf("box's children: %q", b)
	}
	time.Sleep(200 * time.Millisecond) // breakpoints are being hit
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	time.Sleep(500 * time.Millisecond)
	unharmed(t, c.PID)
	wantConcat(t, s, s.from(t, c, "attach", "--format", "json"))
}
