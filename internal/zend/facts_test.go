package zend_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
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
	pids.Store(rt, pid)
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

// eachFPM runs a test with every php-fpm there is: Debian's stripped one and
// all that were built.
func eachFPM(t *testing.T, test func(t *testing.T, fpm string)) {
	fpms := map[string]string{"stripped": testphp.StrippedFPM(t)}
	for _, dir := range testphp.Builds(t) {
		if fpm := filepath.Join(dir, "sbin/php-fpm"); exists(fpm) {
			fpms[filepath.Base(dir)] = fpm
		}
	}
	for name, fpm := range fpms {
		t.Run(name, func(t *testing.T) { test(t, fpm) })
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestTheURIBehindAFrontController has SCRIPT_NAME=/index.php for every request,
// as Laravel, Symfony and WordPress do.
func TestTheURIBehindAFrontController(t *testing.T) {
	script := testphp.Hang(t, "sleep.php")
	long := "/" + strings.Repeat("long/", 200)
	eachFPM(t, func(t *testing.T, fpm string) {
		pool := testphp.FPM(t, fpm, 4)
		for _, uri := range []string{"/real/route?x=1", "/other", "/%E2%82%AC?q=" + strings.Repeat("y", 600), long} {
			live, rt := openRuntime(t, pool.Route(t, script, uri))
			q, err := thread(t, rt).Request(live.Mem)
			if err != nil || q.URI != uri || q.Method != "GET" || q.Script != script {
				t.Errorf("%+v (%v), want %s", q, err, uri)
			}
		}
	})
}

// slot reads what php-fpm notes of a worker.
func slot(t *testing.T, pid int) zend.Slot {
	t.Helper()
	live, err := target.Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	at, err := zend.FindSlot(live.Mem, live.Maps, pid)
	for range 200 { // a worker that has just been started is not in it yet
		if err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
		at, err = zend.FindSlot(live.Mem, live.Maps, pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := zend.ReadSlot(live.Mem, at, pid)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestTheScoreboardKnowsEveryRequest compares php-fpm's notes with the clock:
// before a worker's first request, in it, after it and in the second.
func TestTheScoreboardKnowsEveryRequest(t *testing.T) {
	script, err := filepath.Abs("testdata/_request.php")
	if err != nil {
		t.Fatal(err)
	}
	eachFPM(t, func(t *testing.T, fpm string) {
		for _, workers := range []int{1, 40} {
			pool := testphp.FPM(t, fpm, workers)
			for _, w := range pool.Workers {
				if s := slot(t, w); s.Busy || s.Method != "" {
					t.Errorf("worker %d has had no request, and shows %+v", w, s)
				}
			}
			answered := 0
			t.Run("answered", func(t *testing.T) { answered = pool.Hang(t, script, "") })
			s := slot(t, answered)
			for range 200 { // its client has gone, which it learns in a moment
				if s.Busy {
					time.Sleep(5 * time.Millisecond)
					s = slot(t, answered)
				}
			}
			if s.Busy || s.Requests < 1 {
				t.Errorf("worker %d has answered, and shows %+v", answered, s)
			}
			before, err := proc.Monotonic()
			if err != nil {
				t.Fatal(err)
			}
			pid := pool.Hang(t, testphp.Hang(t, "sleep.php"), "") // which does not ask for the time
			after, err := proc.Monotonic()
			if err != nil {
				t.Fatal(err)
			}
			want := uint64(1) // at least: connections without a request count, too
			if pid == answered {
				want = s.Requests + 1
			}
			s = slot(t, pid)
			if !s.Busy || s.Requests < want || s.Method != "GET" || s.Accepted < before || s.Accepted > after || time.Since(s.AcceptedAt).Abs() > 5*time.Second {
				t.Errorf("worker %d is in its request %d since %s to %s, and shows %+v", pid, want, before, after, s)
			}
			master, err := target.Open(pool.Master)
			if err != nil {
				t.Fatal(err)
			}
			defer master.Close()
			if at, err := zend.FindSlot(master.Mem, master.Maps, pool.Master); !errors.Is(err, zend.ErrNoSlot) {
				t.Errorf("the master has a slot at %s (%v)", at, err)
			}
		}
	})
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
