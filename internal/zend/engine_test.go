package zend_test

import (
	"encoding/json"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// said is what _engine.php prints; -1 where that PHP doesn't know.
type said struct {
	Runs, Collected, Roots, Threshold int64
	Enabled                           bool
	Level, Size, Used                 int64
	Time                              float64
}

func engine(t *testing.T, b testphp.Build, phase string) (*zend.Thread, remote.Reader, *zend.Runtime, said) {
	t.Helper()
	t.Setenv("PHPWHY_PHASE", phase)
	live, rt, line := blocked(t, b, "testdata/_engine.php")
	var s said
	if err := json.Unmarshal([]byte(line), &s); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return thread(t, rt), live.Mem, rt, s
}

func TestTheCollectorsStateEqualsGCStatus(t *testing.T) {
	for _, b := range testphp.AllBuilds(t) {
		for _, phase := range []string{"", "disabled"} {
			t.Run(b.Name+"/"+phase, func(t *testing.T) {
				th, mem, _, want := engine(t, b, phase)
				g, err := th.GC(mem)
				if err != nil {
					t.Fatal(err)
				}
				if g.Enabled != want.Enabled || g.Enabled == (phase == "disabled") || g.Active {
					t.Errorf("got %+v, PHP says %+v", g, want)
				}
				if want.Runs < 0 { // before 7.3
					if g.Runs < 2 || g.Collected < 25000 {
						t.Errorf("got %+v", g)
					}
					return
				}
				if int64(g.Runs) != want.Runs || int64(g.Collected) != want.Collected || int64(g.Threshold) != want.Threshold || g.Protected {
					t.Errorf("got %+v, PHP says %+v", g, want)
				}
				// What happens after gc_status() may add a root or take one away.
				if d := int64(g.Roots) - want.Roots; want.Roots < 100 || d < -3 || d > 3 {
					t.Errorf("%d roots, PHP says %d", g.Roots, want.Roots)
				}
				if want.Time > 0 && g.Time != 0 && math.Abs(g.Time.Seconds()-want.Time) > 1e-6 {
					t.Errorf("%s spent in runs, PHP says %f s", g.Time, want.Time)
				}
			})
		}
	}
}

// TestARunningCollectionIsSeen looks at a script that does nothing else.
func TestARunningCollectionIsSeen(t *testing.T) {
	for _, b := range testphp.AllBuilds(t) {
		if strings.Contains(b.Name, "JIT") || strings.Contains(b.Name, "opcache") {
			continue // run the same collector
		}
		t.Run(b.Name, func(t *testing.T) {
			w := testphp.Start(t, b.PHP(t), "testdata/_collect.php", b.Args...)
			live, rt := openRuntime(t, w.PID)
			pids.Store(rt, w.PID)
			th := thread(t, rt)
			active := 0
			for range 200 {
				g, err := th.GC(live.Mem)
				if err != nil {
					t.Fatal(err)
				}
				if g.Active {
					active++
				}
				time.Sleep(time.Millisecond)
			}
			if active < 100 {
				t.Errorf("a collection runs in %d of 200 looks", active)
			}
		})
	}
}

func TestOutputBuffersEqualObGetStatus(t *testing.T) {
	for _, b := range testphp.AllBuilds(t) {
		t.Run(b.Name, func(t *testing.T) {
			th, mem, _, want := engine(t, b, "")
			o, err := th.Output(mem)
			if err != nil {
				t.Fatal(err)
			}
			if int64(o.Level) != want.Level || int64(o.Size) != want.Size || int64(o.Used) != want.Used || o.Used != 3<<20 {
				t.Errorf("got %+v, PHP says %+v", o, want)
			}
		})
	}
}

func TestWhoServesMemory(t *testing.T) {
	for _, b := range testphp.AllBuilds(t) {
		if strings.Contains(b.Name, "JIT") || strings.Contains(b.Name, "opcache") {
			continue
		}
		for _, tt := range []struct {
			name, env string
			want      zend.AllocatorKind
			by        string
		}{
			{"by default", "", zend.ZendMM, ""},
			{"USE_ZEND_ALLOC=0", "USE_ZEND_ALLOC", zend.Malloc, "__zend_malloc"},
			{"tracked", "USE_TRACKED_ALLOC", zend.Custom, "tracked_malloc"},
		} {
			t.Run(b.Name+"/"+tt.name, func(t *testing.T) {
				version := b.Version(t)
				switch {
				case tt.env == "":
				case tt.by == "tracked_malloc" && version < "8.1":
					t.Skip("since 8.1")
				default:
					t.Setenv("USE_ZEND_ALLOC", "0")
					t.Setenv(tt.env, map[bool]string{true: "1", false: "0"}[tt.env == "USE_TRACKED_ALLOC"])
				}
				live, rt, _ := blocked(t, b, "testdata/_engine.php")
				a, err := thread(t, rt).Allocator(live.Mem)
				if version < "7" && errors.Is(err, zend.ErrNoHeap) {
					t.Skip(err)
				}
				if err != nil || a.Kind != tt.want {
					t.Fatalf("got %+v, %v; want %s", a, err, tt.want)
				}
				if version < "7" {
					if tt.env == "" && a.Handlers != "malloc" && a.Handlers != "mmap_anon" {
						t.Errorf("handlers are %q", a.Handlers)
					}
					return
				}
				m := load(t, live)
				if s, ok := m.syms[tt.by]; ok && tt.by != "" && a.By != remote.Addr(s.Value)+m.bias {
					t.Errorf("it is %s, want %s", a.By, tt.by)
				}
				if in := live.Maps.Find(a.By); tt.by != "" && (in == nil || !in.Exec) {
					t.Errorf("%s at %s is no code", tt.by, a.By)
				}
			})
		}
	}
}

func TestThePhaseOfARequest(t *testing.T) {
	for _, b := range testphp.AllBuilds(t) {
		if strings.Contains(b.Name, "JIT") {
			continue
		}
		for phase, want := range map[string]zend.Phase{
			"": zend.PhaseMain, "shutdown": zend.PhaseShutdown, "exit": zend.PhaseShutdown, "destructor": zend.PhaseDestructor,
		} {
			t.Run(b.Name+"/"+phase, func(t *testing.T) {
				th, mem, _, _ := engine(t, b, phase)
				d, err := th.Depth(mem)
				if err != nil || len(d.Outer) == 0 {
					t.Fatal(d, err)
				}
				if got := th.Phase(mem, &d.Outer[len(d.Outer)-1]); got != want {
					t.Errorf("got %q, want %q; frames %+v", got, want, d.Outer)
				}
			})
		}
	}
}

func TestAWorkerWithoutARequestIsIdle(t *testing.T) {
	pool := testphp.FPM(t, testphp.StrippedFPM(t), 1)
	live, rt := openRuntime(t, pool.Workers[0])
	th := thread(t, rt)
	d, err := th.Depth(live.Mem)
	if err != nil || d.Frames != 0 || !d.Exact {
		t.Errorf("%+v, %v", d, err)
	}
	if p := th.Phase(live.Mem, nil); p != zend.PhaseIdle {
		t.Errorf("got %q", p)
	}
	if s, torn := th.Sample(live.Mem, 10); s.Err != nil || len(s.Frames) != 0 || torn != 0 {
		t.Errorf("%+v, torn %d times", s, torn)
	}
}

// TestDeepRecursionIsCounted has more frames than a walk reads.
func TestDeepRecursionIsCounted(t *testing.T) {
	for _, b := range testphp.AllBuilds(t) {
		for _, depth := range []string{"0", "7500", "60000"} {
			if depth == "60000" && (strings.Contains(b.Name, "xdebug") || strings.Contains(b.Name, "JIT") || b.Version(t) < "7") {
				continue // recurse on the C stack, too
			}
			t.Run(b.Name+"/"+depth, func(t *testing.T) {
				t.Setenv("PHPWHY_DEPTH", depth)
				b.Args = append(append([]string{}, b.Args...), "-d", "xdebug.max_nesting_level=-1", "-d", "memory_limit=-1")
				th, mem, _, _ := engine(t, b, "")
				start := time.Now()
				d, err := th.Depth(mem)
				took := time.Since(start)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				if err := json.Unmarshal([]byte(depth), &n); err != nil {
					t.Fatal(err)
				}
				// And {main}, descend(0), say and fgets.
				if d.Frames != n+4 || !d.Exact {
					t.Errorf("%d frames, exact: %t; want %d", d.Frames, d.Exact, n+4)
				}
				main := d.Outer[len(d.Outer)-1]
				if main.Function != "{main}" || filepath.Base(main.File) != "_engine.php" || main.Line == 0 {
					t.Errorf("the outermost frame is %+v", main)
				}
				if n > 100 && d.Outer[0].Function != "descend" {
					t.Errorf("the outermost frames are %+v", d.Outer)
				}
				t.Logf("%d frames in %s", d.Frames, took)
			})
		}
	}
}

// TestAChangingStackIsNotCountedExactly counts the frames of a script whose
// innermost ones come and go.
func TestAChangingStackIsNotCountedExactly(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), "testdata/_busy.php")
	live, rt := openRuntime(t, w.PID)
	th := thread(t, rt)
	exact := 0
	for range 200 {
		d, err := th.Depth(live.Mem)
		if err != nil {
			continue // torn each time
		}
		if d.Frames > 60 {
			t.Fatalf("%d frames of at most 60", d.Frames)
		}
		if d.Exact {
			exact++
		}
		if n := len(d.Outer); n > 0 && d.Outer[n-1].Function != "{main}" {
			t.Fatalf("%+v", d)
		}
	}
	t.Logf("%d of 200 held still", exact)
}
