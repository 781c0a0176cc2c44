//go:build containers

package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// These tests have another distribution in the container than outside.
// scripts/containers makes what they need under .cache.

// cached is a folder in the cache that a script makes.
func cached(t *testing.T, name, script string) string {
	t.Helper()
	p := filepath.Join(testphp.Root(t), ".cache", name)
	if _, err := os.Stat(p); err != nil {
		testphp.Missing(t, p+": run "+script)
	}
	return p
}

// trixie is Debian 13 with php8.4 and glibc 2.41, and a script on top.
func trixie(t *testing.T, script string) []string {
	t.Helper()
	top := testphp.Tree(t, nil, map[string]string{inScript: testphp.Hang(t, script), inPHPWhy: phpwhy(t)})
	return []string{top, cached(t, "containers/trixie", "testdata/containers/rootfs")}
}

// wantForeignLibc checks that no debug file of this machine's libc was taken
// for the container's: trixie's brings none, so its functions have no lines.
func wantForeignLibc(t *testing.T, rep reported) {
	t.Helper()
	for _, st := range rep.Stacks {
		for _, f := range st.Frames {
			if f.Kind == "native" && f.File != "" {
				t.Errorf("%s is in %s:%d, and nothing in the container says so", f.Function, f.File, f.Line)
			}
		}
	}
}

func TestAnotherDistributionInTheContainer(t *testing.T) {
	for _, is := range testphp.Isolations {
		t.Run(is.Name, func(t *testing.T) {
			c := startPHP(t, is, trixie(t, "mem.string-concat.php"), "/usr/bin/php8.4")
			time.Sleep(grown)
			for _, s := range sights {
				t.Run(s.name, func(t *testing.T) {
					rep := wantConcat(t, s, s.from(t, c, "attach", "--format", "json"))
					wantForeignLibc(t, rep)
					if !strings.HasPrefix(rep.Target.PHPVersion, "8.4.") {
						t.Errorf("PHP %s, want 8.4", rep.Target.PHPVersion)
					}
					wantForeignLibc(t, wantDump(t, s.from(t, c, "dump", "--format", "json"), "buildReport", inScript))
				})
			}
		})
	}
}

// The tools that people build containers with by hand come to the same.
func TestAContainerMadeWithUnshare(t *testing.T) {
	trees := trixie(t, "mem.string-concat.php")
	for _, tt := range []struct {
		name  string
		flags []string
	}{
		{"root", nil},
		{"a user namespace", []string{"--user", "--map-root-user"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scratch := t.TempDir()
			argv := append([]string{testphp.Require(t, "unshare")}, tt.flags...)
			argv = append(argv, "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", `
				mount -t tmpfs tmpfs "$1"
				mkdir "$1/upper" "$1/work" "$1/merged"
				mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/merged"
				mount -t proc proc "$1/merged/proc"
				exec chroot "$1/merged" /usr/bin/php8.4 -n -d memory_limit=-1 "$3"`,
				"sh", scratch, strings.Join(trees, ":"), inScript)
			w := testphp.StartCommand(t, argv...)
			time.Sleep(grown)
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", w.PID, w.PID))
			if err != nil {
				t.Fatal(err)
			}
			pid := strings.TrimSpace(string(b))
			wantConcat(t, sights[0], run(t, "attach", "--format", "json", pid))
			// nsenter and setpriv are the container's own.
			enter := []string{"--target", pid, "--mount", "--pid", "--root", "--wd=/"}
			if tt.flags != nil {
				enter = append(enter, "--user")
			}
			cmd := exec.Command(testphp.Require(t, "nsenter"), append(enter, "/usr/bin/setpriv", "--bounding-set=-all,+sys_ptrace",
				inPHPWhy, "attach", "--format", "json", "1")...)
			wantConcat(t, sights[1], finish(t, cmd, begin(t, cmd)))
		})
	}
}

func TestFPMInAContainer(t *testing.T) {
	for _, is := range testphp.Isolations {
		t.Run(is.Name, func(t *testing.T) {
			c, p := testphp.StartContainerFPM(t, is, trixie(t, "mem.string-concat.php"), "/usr/sbin/php-fpm8.4", 2)
			inner := p.Hang(t, inScript, "id=7")
			hung := slices.IndexFunc(p.Workers, func(pid int) bool { return testphp.Inside(t, pid) == inner })
			if hung < 0 || len(p.Workers) != 2 {
				t.Fatalf("no worker of %v is %d inside", p.Workers, inner)
			}
			busy, idle := p.Workers[hung], p.Workers[1-hung]
			time.Sleep(grown)
			for _, s := range sights {
				id := func(pid int) string {
					if s.outside {
						return fmt.Sprint(pid)
					}
					return fmt.Sprint(testphp.Inside(t, pid))
				}
				t.Run(s.name, func(t *testing.T) {
					r := s.run(t, c, "attach", "--format", "json", id(busy))
					rep := wantConcat(t, s, r)
					wantForeignLibc(t, rep)
					if !strings.Contains(r.out, `"/report.php?id=7"`) {
						t.Errorf("the report does not say which request: %s", r.out)
					}
					r = s.run(t, c, "dump", "--format", "json", id(idle))
					rep = parse(t, r)
					if r.code != 0 || len(rep.Stacks) != 1 || rep.Stacks[0].End != "root" {
						t.Fatalf("idle worker: exit %d, stderr %q, stacks %+v", r.code, r.err, rep.Stacks)
					}
					var names []string
					for _, f := range rep.Stacks[0].Frames {
						names = append(names, f.Function)
					}
					if !slices.Contains(names, "accept") || slices.Contains(names, "{main}") {
						t.Errorf("the idle worker's frames are %q, want accept and no PHP", names)
					}
				})
			}
			for _, pid := range p.Workers {
				if !testphp.Alive(pid) {
					t.Errorf("worker %d has ended", pid)
				}
			}
		})
	}
}

// muslTree is a root that holds a PHP, musl's libc and a script, and nothing
// else.
func muslTree(t *testing.T, php, script string) string {
	t.Helper()
	libc, err := filepath.EvalSymlinks("/lib/ld-musl-x86_64.so.1")
	if err != nil {
		testphp.Missing(t, "musl")
	}
	return testphp.Tree(t, nil, map[string]string{
		inPHP: php, "/lib/ld-musl-x86_64.so.1": libc, inScript: testphp.Hang(t, script), inPHPWhy: phpwhy(t),
	})
}

func TestMuslInTheContainer(t *testing.T) {
	dwarf := filepath.Join(cached(t, "php/8.2-nts-musl-dynamic", "testdata/php/build-musl-dynamic"), "bin/php")
	stripped := filepath.Join(t.TempDir(), "php")
	if out, err := exec.Command(testphp.Require(t, "strip"), "-o", stripped, dwarf).CombinedOutput(); err != nil {
		t.Fatalf("strip: %v: %s", err, out)
	}
	for _, tt := range []struct {
		name, php, symbols string
		is                 testphp.Isolation
		replaced           bool
	}{
		{name: "dwarf", php: dwarf, symbols: "dwarf", is: testphp.Isolations[0]},
		{name: "stripped", php: stripped, symbols: "dynsym", is: testphp.Isolations[1]},
		{name: "stripped, in a chroot", php: stripped, symbols: "dynsym", is: testphp.Isolations[3]},
		{name: "dwarf, replaced", php: dwarf, symbols: "dwarf", is: testphp.Isolations[0], replaced: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startPHP(t, tt.is, []string{muslTree(t, tt.php, "mem.string-concat.php")}, inPHP)
			if tt.replaced {
				c.Put(t, "/bin/ls", inPHP)
				c.Put(t, "/lib/x86_64-linux-gnu/libm.so.6", "/lib/ld-musl-x86_64.so.1")
			}
			time.Sleep(grown)
			for _, s := range sights {
				t.Run(s.name, func(t *testing.T) {
					r := s.from(t, c, "attach", "--format", "json")
					rep := wantConcat(t, s, r)
					if rep.Target.Symbols != tt.symbols || !strings.Contains(r.out, `"module":"ld-musl-x86_64.so.1"`) &&
						!strings.Contains(r.out, `"module": "ld-musl-x86_64.so.1"`) {
						t.Errorf("symbols from %s, want %s; breakpoints are not in musl: %s", rep.Target.Symbols, tt.symbols, r.out)
					}
					wantDump(t, s.from(t, c, "dump", "--format", "json"), "buildReport", inScript)
				})
			}
		})
	}
}

// musl's own realloc enters mremap by another name for the same address.
func TestMuslsOwnAllocatorMeetsTheBreakpoints(t *testing.T) {
	t.Setenv("USE_ZEND_ALLOC", "0")
	php := filepath.Join(cached(t, "php/8.2-nts-musl-dynamic", "testdata/php/build-musl-dynamic"), "bin/php")
	c := startPHP(t, testphp.Isolations[0], []string{muslTree(t, php, "mem.string-concat.php")}, inPHP)
	time.Sleep(grown)
	for _, s := range sights {
		t.Run(s.name, func(t *testing.T) {
			r := s.from(t, c, "attach", "--format", "json")
			rep := parse(t, r)
			if r.code != 0 || rep.Observation.Stops == 0 || len(rep.Stacks) == 0 {
				t.Fatalf("exit %d, stderr %q, %d stops, notes %q", r.code, r.err, rep.Observation.Stops, rep.Notes)
			}
			var names []string
			for _, f := range rep.Stacks[0].Frames {
				names = append(names, f.Function)
			}
			if names[0] != "mremap" || !slices.Contains(names, "concat_function") || !slices.Contains(names, "buildReport") {
				t.Errorf("frames %q, want mremap below concat_function below buildReport", names)
			}
		})
	}
}
