package proc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func TestOpenRefusesWhatCannotRunPHP(t *testing.T) {
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = zombie.Wait() })
	waitFor(t, func() bool {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(zombie.Process.Pid) + "/stat")
		return strings.Contains(string(b), ") Z ")
	})
	for _, tt := range []struct {
		name string
		pid  int
		want error
	}{
		{"a pid that does not exist", 1 << 22, ErrNoProcess},
		{"zero", 0, ErrNoProcess},
		{"a negative number", -5, ErrNoProcess},
		{"a zombie", zombie.Process.Pid, ErrZombie},
		{"a kernel thread", 2, ErrKernelThread},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == ErrKernelThread && !strings.Contains(readFile("/proc/2/comm"), "kthreadd") {
				t.Skip("pid 2 is not kthreadd: in a pid namespace of its own")
			}
			_, err := Open(tt.pid)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is more than one line", err)
			}
		})
	}
}

func TestMemoryReadsWhatTheProcessHas(t *testing.T) {
	p := sleeper(t)
	maps, err := p.Mappings()
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Memory()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	exe := firstFile(t, maps)
	magic := make([]byte, 4)
	if err := remote.ReadFull(m, magic, exe.Start); err != nil || string(magic) != "\x7fELF" {
		t.Fatalf("the first page of %s reads %q, %v", exe.Path, magic, err)
	}
	bufs := [3][4]byte{}
	rs := []Region{{At: exe.Start, Buf: bufs[0][:]}, {At: 8, Buf: bufs[1][:]}, {At: exe.Start, Buf: bufs[2][:]}}
	m.ReadRegions(rs)
	if rs[0].Got != 4 || rs[1].Got != 0 || rs[2].Got != 4 {
		t.Errorf("an unmapped region in the middle: got %d, %d, %d bytes", rs[0].Got, rs[1].Got, rs[2].Got)
	}
	if _, err := remote.Uint64(m, 8); !errors.Is(err, remote.ErrUnmapped) {
		t.Errorf("unmapped memory: %v", err)
	}
	if _, err := remote.Uint64(m, 1<<63); !errors.Is(err, remote.ErrUnmapped) {
		t.Errorf("a kernel address: %v", err)
	}
}

func TestMemoryOfAnEndedProcessIsGone(t *testing.T) {
	p := sleeper(t)
	maps, err := p.Mappings()
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Memory()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if !p.Alive() {
		t.Fatal("it is not alive")
	}
	_ = syscall.Kill(p.PID, syscall.SIGKILL)
	waitFor(t, func() bool { return !p.Alive() })
	if _, err := remote.Uint64(m, maps[0].Start); !errors.Is(err, ErrNoProcess) {
		t.Errorf("got %v, want %v", err, ErrNoProcess)
	}
}

func TestOpenMappedFindsADeletedProgram(t *testing.T) {
	src, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sleep")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	p := start(t, path, "60")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	maps, err := p.Mappings()
	if err != nil {
		t.Fatal(err)
	}
	exe := firstFile(t, maps)
	if !exe.Deleted || exe.Path != path {
		t.Errorf("mapped as %q, deleted %v", exe.Path, exe.Deleted)
	}
	f, err := p.OpenMapped(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	magic := make([]byte, 4)
	if _, err := f.ReadAt(magic, 0); err != nil || string(magic) != "\x7fELF" {
		t.Errorf("reads %q, %v", magic, err)
	}
}

func TestCPUTimeGrowsOnlyWhileTheProcessWorks(t *testing.T) {
	busy := start(t, "sh", "-c", "while :; do :; done")
	idle := sleeper(t)
	b0, q0, err1 := busy.CPUTime()
	i0, _, err2 := idle.CPUTime()
	time.Sleep(200 * time.Millisecond)
	b1, q1, err3 := busy.CPUTime()
	i1, _, err4 := idle.CPUTime()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	if b1-b0 == 0 || b1-b0+q1-q0 < 150*time.Millisecond || i1-i0 > 10*time.Millisecond {
		t.Errorf("in 200 ms the busy one used %v and waited for %v, the idle one used %v", b1-b0, q1-q0, i1-i0)
	}
}

func TestRSSIsWhatTheProcessHasInMemory(t *testing.T) {
	p := sleeper(t)
	var kib uint64
	for line := range strings.Lines(readFile("/proc/" + strconv.Itoa(p.PID) + "/status")) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ = strconv.ParseUint(strings.Fields(v)[0], 10, 64)
		}
	}
	// The kernel counts pages in batches, and the two files ask it differently.
	if n, err := p.RSS(); err != nil || n < kib<<10/2 || n > kib<<10*2 || kib == 0 {
		t.Errorf("%d bytes, %v; its status says %d KiB", n, err, kib)
	}
}

func TestWchanIsKnownOfAThreadThatWaits(t *testing.T) {
	idle, busy := sleeper(t), start(t, "sh", "-c", "while :; do :; done")
	waitFor(t, func() bool { return strings.Contains(idle.Wchan(idle.PID), "nanosleep") })
	if fn := idle.Wchan(idle.PID); strings.ContainsAny(fn, ". \n") {
		t.Errorf("it waits in %q", fn)
	}
	if fn := busy.Wchan(busy.PID); fn != "" {
		t.Errorf("a loop waits in %q", fn)
	}
	if fn := idle.Wchan(busy.PID); fn != "" {
		t.Errorf("a thread of another process waits in %q", fn)
	}
}

func sleeper(t *testing.T) *Process { return start(t, "sleep", "60") }

func start(t *testing.T, argv ...string) *Process {
	t.Helper()
	c := exec.Command(argv[0], argv[1:]...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	// Until the exec has happened the child still is this test program.
	self, _ := os.Readlink("/proc/self/exe")
	waitFor(t, func() bool {
		exe, err := os.Readlink("/proc/" + strconv.Itoa(c.Process.Pid) + "/exe")
		return err == nil && exe != self
	})
	p, err := Open(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func firstFile(t *testing.T, maps remote.Mappings) remote.Mapping {
	t.Helper()
	for _, m := range maps {
		if m.Inode != 0 && m.Read && m.Offset == 0 {
			return m
		}
	}
	t.Fatal("nothing is mapped")
	return remote.Mapping{}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for range 500 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it did not happen within 5 s")
}

func readFile(path string) string { b, _ := os.ReadFile(path); return string(b) }
