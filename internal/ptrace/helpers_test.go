package ptrace

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// fixture is the compiled testdata/loop.c.
var fixture string

func TestMain(m *testing.M) {
	if IsHelper(os.Args[1:]) {
		os.Exit(HelperMain(os.Args[1:]))
	}
	if spec := os.Getenv("PTRACE_TEST_TRACER"); spec != "" {
		tracerMain(spec)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ptrace")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	fixture = filepath.Join(dir, "loop")
	if out, err := exec.Command("gcc", "-O2", "-g", "-pthread", "-o", fixture, "testdata/loop.c").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "gcc: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// tracerMain observes a process until it is killed: "ENGINE PID ADDR...".
func tracerMain(spec string) {
	f := strings.Fields(spec)
	pid, _ := strconv.Atoi(f[1])
	o := Options{Engine: f[0], NoGuard: os.Getenv("PTRACE_TEST_NOGUARD") != ""}
	for _, a := range f[2:] {
		n, _ := strconv.ParseUint(a, 0, 64)
		o.Breakpoints = append(o.Breakpoints, Breakpoint{Addr: remote.Addr(n), Name: a, Syscall: Syscall("mremap")})
	}
	if n := os.Getenv("PTRACE_TEST_STOPS"); n != "" {
		o.MaxStops, _ = strconv.Atoi(n)
	}
	n := 0
	res, err := Observe(context.Background(), pid, o, HandlerFunc(func(*Stop) Verdict {
		if n++; n == 100 {
			fmt.Println("ready")
		}
		return Continue
	}))
	if err == nil && o.MaxStops > 0 {
		os.Exit(0)
	}
	fmt.Fprintf(os.Stderr, "%+v %v\n", res, err)
	os.Exit(1)
}

// worker is a running fixture.
type worker struct {
	t      *testing.T
	cmd    *exec.Cmd
	pid    int
	shared []byte
}

func start(t *testing.T, threads int, mode string, more ...string) *worker {
	t.Helper()
	w := &worker{t: t}
	args := w.prepare(threads, mode, more...)
	w.cmd = exec.Command(args[0], args[1:]...)
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.pid = w.cmd.Process.Pid
	t.Cleanup(w.kill)
	if mode != "idle" {
		w.awaitLoops(1)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if tids, _ := threadsOf(w.pid); len(tids) >= threads && (mode != "idle" || sleeps(w.pid)) {
			return w
		}
		if time.Now().After(end) {
			t.Fatal("the worker's threads do not start")
		}
	}
}

// sleeps reports whether the fixture's main thread waits in pause(2).
func sleeps(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", pid))
	return strings.HasPrefix(string(b), fmt.Sprint(unix.SYS_PAUSE, " "))
}

// prepare makes the shared page and returns the command line.
func (w *worker) prepare(threads int, mode string, more ...string) []string {
	w.t.Helper()
	f, err := os.CreateTemp(w.t.TempDir(), "shared")
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		w.t.Fatal(err)
	}
	if w.shared, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = unix.Munmap(w.shared) })
	return append([]string{fixture, f.Name(), strconv.Itoa(threads), mode}, more...)
}

// kill ends the worker. It is not waited for before: a wait in this process
// takes the ptrace stops of its children too, whichever thread traces them.
func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// The counters of the shared page, in struct shared's order.
const (
	loops = iota
	bad
	signals
	sum
	children
	failed
	traps
	execs
)

func (w *worker) count(i int) uint64 { return binary.LittleEndian.Uint64(w.shared[i*8:]) }

func (w *worker) awaitLoops(n uint64) {
	w.t.Helper()
	from := w.count(loops)
	for end := time.Now().Add(5 * time.Second); w.count(loops) < from+n; {
		if time.Now().After(end) {
			w.t.Fatalf("worker %d does not run: %s; %v", w.pid, statusField(w.pid, "State"), ended(w))
		}
		time.Sleep(time.Millisecond)
	}
}

// libcText is the executable mapping of libc in a process.
type libcText struct {
	start, off uint64
	size       int
	path       string
}

func libcOf(t *testing.T, pid int) libcText {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 6 && strings.Contains(f[5], "/libc.so") && f[1][2] == 'x' {
			lo, hi, _ := strings.Cut(f[0], "-")
			s, _ := strconv.ParseUint(lo, 16, 64)
			e, _ := strconv.ParseUint(hi, 16, 64)
			off, _ := strconv.ParseUint(f[2], 16, 64)
			return libcText{s, off, int(e - s), f[5]}
		}
	}
	t.Fatalf("no libc in %d", pid)
	return libcText{}
}

// at finds functions of libc in a process.
func at(t *testing.T, pid int, names ...string) []Breakpoint {
	t.Helper()
	l := libcOf(t, pid)
	f, err := elf.Open(l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syms, err := f.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	var out []Breakpoint
	for _, n := range names {
		for _, s := range syms {
			if s.Name == n && s.Section != elf.SHN_UNDEF {
				// libc's text segment has equal offsets and addresses in
				// the file up to its load address.
				for _, p := range f.Progs {
					if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 {
						out = append(out, Breakpoint{Addr: remote.Addr(l.start + s.Value - p.Vaddr + p.Off - l.off), Name: n, Syscall: Syscall(n)})
					}
				}
				break
			}
		}
	}
	if len(out) != len(names) {
		t.Fatalf("found %v of %v", out, names)
	}
	return out
}

// textDiffers compares libc's text in memory with its file.
func textDiffers(t *testing.T, pid int) int {
	t.Helper()
	l := libcOf(t, pid)
	mem := make([]byte, l.size)
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(mem, int64(l.start)); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	want := make([]byte, l.size)
	n, _ := file.ReadAt(want, int64(l.off))
	diff := 0
	for i := range want[:n] {
		if mem[i] != want[i] {
			diff++
		}
	}
	return diff
}

// mustBeClean checks that nothing is left in or around the worker.
func (w *worker) mustBeClean() {
	w.t.Helper()
	if n := textDiffers(w.t, w.pid); n != 0 {
		w.t.Errorf("%d bytes of libc's text differ from the file", n)
	}
	if s := statusField(w.pid, "TracerPid"); s != "0" {
		w.t.Errorf("TracerPid is %s", s)
	}
	if strings.HasPrefix(statusField(w.pid, "State"), "t") {
		w.t.Errorf("it is left stopped: %s", statusField(w.pid, "State"))
	}
	const sigtrap = 1 << (uint(unix.SIGTRAP) - 1)
	for _, f := range []string{"SigIgn", "SigCgt"} {
		m, err := strconv.ParseUint(statusField(w.pid, f), 16, 64)
		if err != nil || m&sigtrap != 0 {
			w.t.Errorf("%s has SIGTRAP: %x (%v)", f, m, err)
		}
	}
	maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", w.pid))
	for line := range strings.Lines(string(maps)) {
		if f := strings.Fields(line); len(f) == 5 && f[1][2] == 'x' {
			w.t.Errorf("anonymous executable memory is left: %s", line)
		}
	}
	if n := w.count(bad); n != 0 {
		w.t.Errorf("%d mremap calls went wrong", n)
	}
}

func nop(*Stop) Verdict { return Continue }

var engines = []string{EngineHWBP, EngineInt3, EngineSyscall}

func median[T int | float64 | time.Duration](v []T) T {
	s := slices.Clone(v)
	slices.Sort(s)
	return s[len(s)/2]
}

// ended says how a worker that has ended did so.
func ended(w *worker) error {
	if !strings.HasPrefix(statusField(w.pid, "State"), "Z") || w.cmd == nil {
		return nil
	}
	return w.cmd.Wait()
}
