package zend_test

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/zend"
)

func openRuntime(t testing.TB, pid int) (*target.Live, *zend.Runtime) {
	t.Helper()
	live, err := target.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = live.Close() })
	rt, err := zend.Open(load(t, live).options(), live.Mem)
	if err != nil {
		t.Fatal(err)
	}
	return live, rt
}

func TestTheRequestOfAnFPMWorker(t *testing.T) {
	script, err := filepath.Abs("testdata/_request.php")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []struct {
		name string
		fpm  func(testing.TB) string
	}{{"stripped", testphp.StrippedFPM}, {"dwarf", testphp.DWARFFPM}} {
		t.Run(b.name, func(t *testing.T) {
			pool := testphp.FPM(t, b.fpm(t), 1)
			began := time.Now()
			pid := 0
			// The worker waits for its client to close the connection.
			t.Run("answered", func(t *testing.T) { pid = pool.Hang(t, script, "") })
			live, rt := openRuntime(t, pid)
			q, err := thread(t, rt).Request(live.Mem)
			for range 200 {
				if errors.Is(err, zend.ErrNoRequest) {
					break
				}
				time.Sleep(5 * time.Millisecond)
				q, err = thread(t, rt).Request(live.Mem)
			}
			if !errors.Is(err, zend.ErrNoRequest) || q != (zend.Request{}) {
				t.Errorf("a worker that has answered: %+v, %v", q, err)
			}
			if s := thread(t, rt).Walk(live.Mem); s.Err != nil || len(s.Frames) != 0 {
				t.Errorf("a worker that has answered has frames: %+v", s)
			}

			pool.Hang(t, script, "wait=1")
			q, err = thread(t, rt).Request(live.Mem)
			if err != nil {
				t.Fatal(err)
			}
			if q.Method != "GET" || q.URI != "/_request.php?wait=1" || q.Script != script {
				t.Errorf("got %+v", q)
			}
			if q.Start.Before(began) || q.Start.After(time.Now()) {
				t.Errorf("began at %s, not between %s and now", q.Start, began)
			}
			if rt.SAPI != "fpm-fcgi" {
				t.Errorf("SAPI %q", rt.SAPI)
			}
		})
	}
}

func TestMemoryEqualsWhatPHPSays(t *testing.T) {
	for _, b := range builds {
		t.Run(b.Name, func(t *testing.T) {
			live, rt, line := blocked(t, b, "testdata/_memory.php")
			var want zend.Memory
			if err := json.Unmarshal([]byte(line), &want); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			got, err := thread(t, rt).Memory(live.Mem)
			if err != nil {
				t.Fatal(err)
			}
			// Printing the figures takes a little memory.
			if d := int64(got.Used) - int64(want.Used); d < 0 || d > 64<<10 {
				t.Errorf("used %d, PHP says %d", got.Used, want.Used)
			}
			if got.Reserved != want.Reserved || got.RealPeak != want.RealPeak || got.Limit != want.Limit {
				t.Errorf("got %+v, PHP says %+v", got, want)
			}
			if d := int64(got.Peak) - int64(want.Peak); d < 0 || d > 64<<10 {
				t.Errorf("peak %d, PHP says %d", got.Peak, want.Peak)
			}
		})
	}
}

// TestNoHeapIsNotZeroBytes turns the Zend memory manager off.
func TestNoHeapIsNotZeroBytes(t *testing.T) {
	t.Setenv("USE_ZEND_ALLOC", "0")
	live, rt, _ := blocked(t, builds[0], "testdata/nested.php")
	if m, err := thread(t, rt).Memory(live.Mem); !errors.Is(err, zend.ErrNoHeap) {
		t.Errorf("got %+v, %v", m, err)
	}
	if s := thread(t, rt).Walk(live.Mem); s.Err != nil || len(s.Frames) < 6 {
		t.Errorf("%d frames, %v", len(s.Frames), s.Err)
	}
}
