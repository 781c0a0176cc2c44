package perf

import (
	"debug/elf"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// libc opens this machine's C library and finds a function in it.
func libc(t testing.TB, name string) (Point, []byte) {
	t.Helper()
	path := "/lib/x86_64-linux-gnu/libc.so.6"
	f, err := os.Open(path)
	if err != nil {
		testphp.Missing(t, path)
	}
	t.Cleanup(func() { _ = f.Close() })
	e, err := elf.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	syms, err := e.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range syms {
		if s.Name == name {
			code := make([]byte, s.Size)
			if _, err := f.ReadAt(code, int64(s.Value)); err != nil { // its text lies at its address
				t.Fatal(err)
			}
			return Point{File: f, Offset: s.Value, Name: name}, code
		}
	}
	t.Fatalf("no %s in %s", name, path)
	return Point{}, nil
}

// loop writes how often it went round to the file that is its argument.
const loop = `<?php
echo "ready\n"; flush();
$out = fopen($argv[1], 'c');
for ($n = 0;; ) {
    for ($i = 0; $i < 500; $i++) { getmypid(); getenv("NOSUCHVARIABLE", true); for ($k = 0; $k < 150; $k++); }
    $n += 500; rewind($out); fwrite($out, sprintf('%015d', $n)); fflush($out);
}
`

// counting starts a worker that calls getpid and getenv over and over, and returns what
// measures how many rounds it makes per second of its own processor time.
func counting(t testing.TB) (pid int, rate func() float64) {
	t.Helper()
	dir := t.TempDir()
	script, count := filepath.Join(dir, "loop.php"), filepath.Join(dir, "count")
	if err := os.WriteFile(script, []byte(loop), 0o600); err != nil {
		t.Fatal(err)
	}
	w := testphp.StartCommand(t, testphp.Stripped(t), "-n", script, count)
	read := func() (rounds, nanos float64) {
		b, _ := os.ReadFile(count)
		n, _ := strconv.Atoi(strings.TrimLeft(string(b), "0"))
		s, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", w.PID))
		if err != nil {
			t.Fatal(err)
		}
		ns, _ := strconv.ParseFloat(strings.Fields(string(s))[0], 64)
		return float64(n), ns
	}
	return w.PID, func() float64 {
		n0, t0 := read()
		time.Sleep(400 * time.Millisecond)
		n1, t1 := read()
		return (n1 - n0) / (t1 - t0) * 1e9
	}
}

func globals(t testing.TB, pid int) uint64 {
	e, err := elf.Open(testphp.Stripped(t))
	if err != nil {
		t.Fatal(err)
	}
	syms, _ := e.DynamicSymbols()
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	var base uint64
	_, _ = fmt.Sscanf(string(b), "%x-", &base)
	for _, s := range syms {
		if s.Name == "executor_globals" {
			return base + s.Value
		}
	}
	t.Fatal("no executor_globals")
	return 0
}

// TestWhatAHitCosts measures on the worker's own processor time, which does not
// depend on what else the machine does.
func TestWhatAHitCosts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	pid, rate := counting(t)
	eg := globals(t, pid)
	// As in Debian's 8.2; TestListEqualsMemory in package observe checks real ones.
	list := &Follow{Head: remote.Addr(eg + 488), NodeSize: 80, DescSize: 248, Next: 48, Desc: 24, A: 0, B: 32, Flags: 40}
	pushes, _ := libc(t, "getenv")
	steps, _ := libc(t, "getpid")
	for _, c := range []struct {
		name  string
		point Point
		most  int
		stack int
		list  *Follow
		limit float64 // microseconds
	}{
		{"counted", pushes, 0, 8, nil, 10},
		{"copied without a stack", pushes, math.MaxInt, 8, nil, 20},
		{"copied with 16 KiB", pushes, math.MaxInt, 16 << 10, nil, 30},
		{"copied with 16 KiB and a list", pushes, math.MaxInt, 16 << 10, list, 30},
		{"counted, stepping", steps, 0, 8, nil, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			free := rate()
			s := open(t, Options{PID: pid, Points: []Point{c.point}, Stack: c.stack, Follow: c.list}, c.most)
			stop := reading(t, s, func(*Sample) {})
			slow := rate()
			hits := s.Hits()[0]
			n := stop()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			free = (free + rate()) / 2
			cost := (1/slow - 1/free) * 1e6
			t.Logf("%.0f rounds per second of processor time, free %.0f: a hit takes %.2f us; %d hits, %d read", slow, free, cost, hits, n)
			if cost > c.limit {
				t.Errorf("a hit takes %.1f us", cost)
			}
			if hits == 0 || c.most > 0 && n == 0 {
				t.Error("nothing was seen")
			}
		})
	}
}
