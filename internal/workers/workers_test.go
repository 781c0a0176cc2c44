package workers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

func pids(ws []Worker) []int {
	var out []int
	for i := range ws {
		out = append(out, ws[i].PID)
	}
	return out
}

func TestAPoolIsFoundWithoutItsMaster(t *testing.T) {
	p := testphp.FPM(t, testphp.StrippedFPM(t), 3)
	want := slices.Sorted(slices.Values(p.Workers))
	for name, f := range map[string]Filter{
		"everything": {},
		"pool":       {Pools: []string{"other", "www"}},
		"match":      {Match: regexp.MustCompile(`^php-fpm: pool w+$`)},
		"pids":       {PIDs: slices.Concat(p.Workers, p.Workers)},
	} {
		ws, err := Find(context.Background(), f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// Other tests' PHP may run beside.
		ws = slices.DeleteFunc(ws, func(w Worker) bool { return w.PPID != p.Master && w.PID != p.Master })
		if !slices.Equal(pids(ws), want) {
			t.Errorf("%s: %v, want %v", name, pids(ws), want)
		}
		for _, w := range ws {
			if w.Pool != "www" || w.Exe != testphp.StrippedFPM(t) || w.Start == 0 || w.State == "" {
				t.Errorf("%s: %+v", name, w)
			}
		}
	}
	if ws, err := Find(context.Background(), Filter{PIDs: []int{p.Master}}); err != nil || len(ws) != 1 {
		t.Errorf("a master that is named: %v, %v", ws, err)
	}
	if ws, err := Find(context.Background(), Filter{Pools: []string{"nosuch"}}); !errors.Is(err, ErrNone) || len(ws) != 0 {
		t.Errorf("a pool that is not there: %v, %v", ws, err)
	}
}

func TestAMissingPidSpoilsNoOther(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	ws, err := Find(context.Background(), Filter{PIDs: []int{w.PID, 1 << 30}})
	if !errors.Is(err, proc.ErrNoProcess) || !slices.Equal(pids(ws), []int{w.PID}) {
		t.Errorf("%v, %v", pids(ws), err)
	}
}

func TestAProgramIsPHPByItsCodeNotItsName(t *testing.T) {
	dir := t.TempDir()
	copied := func(from, name string) string {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	w := testphp.Start(t, copied(testphp.Stripped(t), "webserver"), testphp.Hang(t, "sleep.php"))
	ws, err := Find(context.Background(), Filter{})
	if err != nil || !slices.Contains(pids(ws), w.PID) {
		t.Errorf("a program that is PHP and is called otherwise: %v, %v", ws, err)
	}
	for _, w := range ws {
		if w.PID == os.Getpid() || w.PID == 1 {
			t.Errorf("%+v is no PHP", w)
		}
	}
	if is, err := hasPHP("/bin/sh"); is || err != nil {
		t.Errorf("/bin/sh: %v, %v", is, err)
	}
}

func TestAForkingScriptIsAWorkerItself(t *testing.T) {
	s := search{found: []Worker{
		{ID: ID{PID: 2}, Exe: "/usr/bin/php8.2"}, {ID: ID{PID: 3}, PPID: 2, Exe: "/usr/bin/php8.2"},
		{ID: ID{PID: 4}, Exe: "/usr/sbin/apache2", binary: binary{1, 2}}, {ID: ID{PID: 5}, PPID: 4, Exe: "/usr/sbin/apache2", binary: binary{1, 2}},
	}}
	s.dropMasters()
	if got := pids(s.found); !slices.Equal(got, []int{2, 3, 5}) {
		t.Errorf("left: %v", got)
	}
}

func TestCGroups(t *testing.T) {
	const id = "4f5e1c0b9a8d7e6f4f5e1c0b9a8d7e6f4f5e1c0b9a8d7e6f4f5e1c0b9a8d7e6f"
	for _, c := range []struct {
		lines, want string
		ok          bool
	}{
		{"0::/system.slice/php8.2-fpm.service\n", "/system.slice/php8.2-fpm.service", true},
		{"0::/system.slice/php8.2-fpm.service\n", "/sys/fs/cgroup/system.slice", true},
		{"0::/system.slice/php8.2-fpm.service\n", "system.slice/", true},
		{"0::/system.slice/php8.2-fpm.service\n", "/system.slice/php8.2", false},
		{"5:cpu:/\n4:memory:/docker/" + id + "\n", id[:12], true},
		{"0::/system.slice/docker-" + id + ".scope\n", id, true},
		{"0::/kubepods.slice/cri-containerd-" + id + ".scope\n", id[:12], true},
		{"0::/system.slice/docker-" + id + ".scope\n", id[1:13], false},
		{"rubbish\n", "/", false},
		{"0::/system.slice/docker-" + id + ".scope\n", "docker://" + id, true},
		{"0::/system.slice/docker-" + id + ".scope\n", "containerd://" + id[:12], true},
		{"0::/system.slice/docker-" + id + ".scope\n", "/sys/fs/cgroup/system.slice/docker-" + id + ".scope", true},
		{"0::/system.slice/docker-" + id + ".scope\n", "/sys/fs/cgroup/unified/system.slice/docker-" + id + ".scope/", true},
		{"4:cpu,cpuacct:/a/b\n", "/sys/fs/cgroup/cpu,cpuacct/a", true},
		{"4:cpu,cpuacct:/a/b\n", "/sys/fs/cgroup/cpu/a/b", true},
		{"1:name=systemd:/a/b\n", "/sys/fs/cgroup/systemd/a/b", true},
		{"4:cpu,cpuacct:/a/b\n", "/sys/fs/cgroup/memory/a/b", false},
	} {
		if got := cgroupMatches(c.lines, c.want); got != c.ok {
			t.Errorf("%q in %q: %v", c.want, c.lines, got)
		}
	}
}

func TestStatWithANameThatDeceives(t *testing.T) {
	w := Worker{ID: ID{PID: 7}}
	const rest = "S 5 1 1 0 -1 4194560 1 2 3 4 11 22 0 0 20 0 1 0 987 1 1 18446744073709551615"
	if err := w.stat(fmt.Sprintf("7 (a) R 9 (b) %s", rest)); err != nil {
		t.Fatal(err)
	}
	if w.State != "S" || w.PPID != 5 || w.Start != 987 || w.CPU != 33*tick {
		t.Errorf("%+v", w)
	}
	for _, s := range []string{"", "7 (a", "7 (a) S 1", "7 (a) S x 1 1 0 -1 4194560 1 2 3 4 11 22 0 0 20 0 1 0 987"} {
		if err := (&Worker{}).stat(s); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

func TestOneProcessIsOne(t *testing.T) {
	for n, want := range map[int]string{1: "1 process", 2: "2 processes"} {
		if got := processes(n); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
