package zend_test

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// modules looks symbols up with debug/elf, so that these tests don't lean on
// package symbolize.
type modules struct {
	syms map[string]elf.Symbol
	bias remote.Addr
	file *elf.File
}

func load(t testing.TB, live *target.Live) *modules {
	t.Helper()
	exe := fmt.Sprintf("/proc/%d/exe", live.PID)
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	m := &modules{syms: make(map[string]elf.Symbol), file: f}
	for _, list := range []func() ([]elf.Symbol, error){f.DynamicSymbols, f.Symbols} {
		syms, err := list()
		if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
			t.Fatal(err)
		}
		for _, s := range syms {
			if s.Section != elf.SHN_UNDEF {
				m.syms[strings.Split(s.Name, "@")[0]] = s
			}
		}
	}
	path, err := live.Exe()
	if err != nil {
		t.Fatal(err)
	}
	for i := range live.Maps {
		if live.Maps[i].Path == path && f.Type == elf.ET_DYN {
			m.bias = live.Maps[i].Start
			break
		}
	}
	return m
}

func (m *modules) options() zend.Options {
	return zend.Options{
		Lookup: func(name string) (remote.Addr, uint64, bool) {
			s, ok := m.syms[name]
			return remote.Addr(s.Value) + m.bias, s.Size, ok
		},
		Rodata: func() ([]byte, error) { return m.file.Section(".rodata").Data() },
	}
}

// builds are those that every test runs on.
var builds = []testphp.Build{testphp.StrippedBuilds[0], testphp.StrippedBuilds[1], {Name: "dwarf", PHP: testphp.DWARF, Args: []string{"-n"}}}

// blocked starts a script that prints one line of JSON and blocks, and stops it.
func blocked(t testing.TB, b testphp.Build, script string) (*target.Live, *zend.Runtime, string) {
	t.Helper()
	pid, line := testphp.Blocked(t, b, script)
	testphp.Stop(t, pid)
	live, err := target.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = live.Close() })
	rt, err := zend.Open(load(t, live).options(), live.Mem)
	if err != nil {
		t.Fatal(err)
	}
	pids.Store(rt, pid)
	return live, rt, line
}

// pids are the processes of the engines that blocked has opened.
var pids sync.Map

// backtrace turns PHP frames into what debug_backtrace() would say: each call
// is named with its caller's place.
func backtrace(frames []zend.Frame) []testphp.Entry {
	var out []testphp.Entry
	for i := range frames {
		f := &frames[i]
		if f.Function == "{main}" {
			continue
		}
		e := testphp.Entry{Function: f.Function, Class: f.Class}
		caller := i + 1
		for caller < len(frames) && frames[caller].Via {
			caller++
		}
		if caller < len(frames) && !frames[caller].Internal {
			e.File, e.Line = frames[caller].File, frames[caller].Line
		}
		out = append(out, e)
	}
	return out
}

func TestFramesEqualDebugBacktrace(t *testing.T) {
	compared := 0
	for _, b := range testphp.AllBuilds(t) {
		for _, script := range testphp.BacktraceScripts(t, b.Version(t)) {
			t.Run(b.Name+"/"+strings.TrimSuffix(filepath.Base(script), ".php"), func(t *testing.T) {
				live, rt, line := blocked(t, b, script)
				want := testphp.Entries(t, line)
				s := thread(t, rt).Walk(live.Mem)
				if s.Err != nil {
					t.Fatal(s.Err)
				}
				// The innermost frame is the fgets that blocks; it stands where
				// debug_backtrace() was called.
				if len(s.Frames) == 0 || s.Frames[0].Function != "fgets" || !s.Frames[0].Internal {
					t.Fatalf("the innermost frame is %+v, want fgets", s.Frames)
				}
				if d := cmp.Diff(want, backtrace(s.Frames[1:])); d != "" {
					t.Error(d)
				}
				compared += len(want) + 1
			})
		}
	}
	t.Logf("%d frames compared", compared)
}

func TestRuntimeKnowsItsBuild(t *testing.T) {
	for _, b := range builds {
		t.Run(b.Name, func(t *testing.T) {
			live, rt, _ := blocked(t, b, "testdata/nested.php")
			out, err := exec.Command(b.PHP(t), "-n", "-r", "echo PHP_VERSION, ' ', PHP_SAPI, ' ', PHP_DEBUG;").Output()
			if err != nil {
				t.Fatal(err)
			}
			debug := 0
			if rt.Debug {
				debug = 1
			}
			if got := fmt.Sprintf("%s %s %d", rt.Version, rt.SAPI, debug); got != string(out) {
				t.Errorf("recognised %q, PHP says %q", got, out)
			}
			m, err := thread(t, rt).Memory(live.Mem)
			if err != nil || m.Limit != 128<<20 {
				t.Errorf("memory %+v, %v", m, err)
			}
			q, err := thread(t, rt).Request(live.Mem)
			if err != nil || filepath.Base(q.Script) != "nested.php" {
				t.Errorf("request %+v, %v", q, err)
			}
		})
	}
}

// TestACorruptedChainEndsInOneError writes into a real, stopped process.
func TestACorruptedChainEndsInOneError(t *testing.T) {
	for _, tt := range []struct {
		name string
		prev func(frames []zend.Frame) remote.Addr
		want error
		keep int
	}{
		{"a cycle", func(f []zend.Frame) remote.Addr { return f[1].ExecuteData }, zend.ErrCycle, 4},
		{"a frame that is its own caller", func(f []zend.Frame) remote.Addr { return f[3].ExecuteData }, zend.ErrCycle, 4},
		{"a wild pointer", func([]zend.Frame) remote.Addr { return 0xdead0000 }, zend.ErrWild, 4},
		{"a crooked pointer", func(f []zend.Frame) remote.Addr { return f[1].ExecuteData + 3 }, zend.ErrWild, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			live, rt, _ := blocked(t, builds[0], "testdata/nested.php")
			s := thread(t, rt).Walk(live.Mem)
			if s.Err != nil || len(s.Frames) < 6 {
				t.Fatalf("%d frames, %v", len(s.Frames), s.Err)
			}
			poke(t, live.PID, s.Frames[3].ExecuteData+remote.Addr(rt.Layout.EDPrev), uint64(tt.prev(s.Frames)))
			got := thread(t, rt).Walk(live.Mem)
			if !errors.Is(got.Err, tt.want) || strings.Contains(got.Err.Error(), "\n") {
				t.Errorf("got %v, want %v", got.Err, tt.want)
			}
			if len(got.Frames) != tt.keep {
				t.Errorf("%d frames were kept, want %d", len(got.Frames), tt.keep)
			}
			snap := target.NewSnapshot(live.Mem)
			thread(t, rt).Prefetch(snap) // must end, too
		})
	}
}

func poke(t *testing.T, pid int, at remote.Addr, v uint64) {
	t.Helper()
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [8]byte
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	if _, err := f.WriteAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
}

func TestProcessesThatCannotBeReadAreNamed(t *testing.T) {
	for _, tt := range []struct {
		name, has string
		want      error
	}{
		{"no Zend engine", "", zend.ErrNotPHP},
		{"an engine that tells no version", "executor_globals", zend.ErrNoVersion},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := zend.Options{Lookup: func(name string) (remote.Addr, uint64, bool) { return 0x1000, 8, name == tt.has }}
			if _, err := zend.Open(o, nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestTheEngineAndItsFileMustAgree(t *testing.T) {
	live, _, _ := blocked(t, builds[0], "testdata/nested.php")
	o := load(t, live).options()
	// As after an upgrade that replaced the file of a running worker.
	o.Rodata = func() ([]byte, error) { return []byte("X-Powered-By: PHP/8.2.1\x00"), nil }
	if _, err := zend.Open(o, live.Mem); !errors.Is(err, zend.ErrNoVersion) || !strings.Contains(err.Error(), "8.2.1") {
		t.Errorf("got %v", err)
	}
}

// thread returns the only thread of an engine, or the main thread's share of a
// thread-safe one.
func thread(t testing.TB, rt *zend.Runtime) *zend.Thread {
	t.Helper()
	th, err := rt.Thread(nil, 0)
	if !rt.ZTS {
		if err != nil {
			t.Fatal(err)
		}
		return th
	}
	pid, ok := pids.Load(rt)
	if !ok {
		t.Fatal("whose thread?")
	}
	live, err := target.Open(pid.(int))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	_, err = ptrace.Freeze(context.Background(), live.PID, func(ts []ptrace.ThreadStop) error {
		th, err = rt.Thread(live.Mem, ts[0].Regs.TLS)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return th
}
