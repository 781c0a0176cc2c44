package perf

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

func threads(t *testing.T, args ...string) *testphp.Worker {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "threads")
	src := filepath.Join(testphp.Root(t), "internal/perf/testdata/threads.c")
	if out, err := exec.Command(testphp.Require(t, "gcc"), "-O1", "-pthread", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return testphp.StartCommand(t, append([]string{bin}, args...)...)
}

// libcText is the C library's code in a process, and as it is in the file.
func libcText(t *testing.T, pid int) (have, want []byte) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "r-xp" || filepath.Base(f[5]) != "libc.so.6" {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, _ := strconv.ParseInt(from, 16, 64)
		end, _ := strconv.ParseInt(to, 16, 64)
		off, _ := strconv.ParseInt(f[2], 16, 64)
		have, want = make([]byte, end-start), make([]byte, end-start)
		for path, at := range map[string]int64{fmt.Sprintf("/proc/%d/mem", pid): start, f[5]: off} {
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			b := want
			if at == start {
				b = have
			}
			if _, err := file.ReadAt(b, at); err != nil {
				t.Fatal(err)
			}
			_ = file.Close()
		}
		return have, want
	}
	t.Fatalf("no libc: %s", maps)
	return nil, nil
}

func unchanged(t *testing.T, pid int) {
	t.Helper()
	if have, want := libcText(t, pid); !bytes.Equal(have, want) {
		t.Errorf("the C library's code in %d differs from its file", pid)
	}
}

func TestThreadsThatComeLaterAreSeen(t *testing.T) {
	w := threads(t)
	pt, _ := libc(t, "getppid")
	s := open(t, Options{PID: w.PID, Points: []Point{pt}, Stack: 256}, math.MaxInt)
	if have, want := libcText(t, w.PID); bytes.Equal(have, want) {
		t.Error("no breakpoint shows in the memory: the comparison is blind")
	}
	tids := make(map[int]int)
	stop := reading(t, s, func(sm *Sample) { tids[sm.TID]++ })
	time.Sleep(time.Second)
	n := stop()
	if len(tids) < 8 || n < 1000 || tids[w.PID] != 0 {
		t.Errorf("%d samples of %d threads: %v", n, len(tids), tids)
	}
	whole := 0
	for _, k := range tids {
		if k == 200 {
			whole++
		}
	}
	if whole < len(tids)-4 {
		t.Errorf("threads with all of their 200 calls: %d of %d: %v", whole, len(tids), tids)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	unchanged(t, w.PID)
}

func children(t *testing.T, pid int) (out []int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(b)) {
		n, _ := strconv.Atoi(f)
		out = append(out, n)
	}
	return out
}

func TestAForkedChildIsNeitherSeenNorHarmed(t *testing.T) {
	w := threads(t, "f") // forks after its first threads, some 30 ms on
	pt, _ := libc(t, "getppid")
	s := open(t, Options{PID: w.PID, Points: []Point{pt}, Stack: 256}, math.MaxInt)
	stop := reading(t, s, func(sm *Sample) {
		if sm.PID != w.PID {
			t.Errorf("a sample of process %d", sm.PID)
		}
	})
	time.Sleep(500 * time.Millisecond)
	kids := children(t, w.PID)
	if len(kids) != 1 {
		t.Fatalf("children: %v", kids)
	}
	defer func() { _ = exec.Command("kill", "-9", fmt.Sprint(kids[0])).Run() }()
	if n := stop(); n == 0 {
		t.Error("nothing of the parent")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !testphp.Alive(kids[0]) || !testphp.Alive(w.PID) {
		t.Error("somebody died")
	}
	unchanged(t, kids[0])
	unchanged(t, w.PID)
}

func TestAProgramThatReplacesItselfIsUnharmed(t *testing.T) {
	w := threads(t, "e")
	pt, _ := libc(t, "getppid")
	s := open(t, Options{PID: w.PID, Points: []Point{pt}, Stack: 256, SampleEvery: time.Millisecond}, math.MaxInt)
	if err := s.Watch([]int{w.PID}); err != nil {
		t.Fatal(err)
	}
	stop := reading(t, s, func(*Sample) {})
	time.Sleep(500 * time.Millisecond)
	stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !testphp.Alive(w.PID) {
		t.Fatal("it died")
	}
	unchanged(t, w.PID)
}
