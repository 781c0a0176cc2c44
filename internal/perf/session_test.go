package perf

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// open begins a session, or says what is missing here.
func open(t testing.TB, o Options, most int) *Session {
	t.Helper()
	s, err := Open(o)
	if errors.Is(err, proc.ErrPermission) || errors.Is(err, ErrNoUprobes) {
		testphp.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Resume(most); err != nil {
		t.Fatal(err)
	}
	return s
}

// reading reads in the background until it is told to stop, and then once more.
func reading(t testing.TB, s *Session, fn func(*Sample)) (stop func() int) {
	t.Helper()
	end, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for last := false; ; {
			k, err := s.Read(fn)
			if err != nil {
				t.Error(err)
			}
			n += k
			if last && k == 0 {
				done <- n
				return
			}
			select {
			case <-end:
				last = true
				s.Allow(0)
			default:
				if k == 0 {
					time.Sleep(time.Millisecond)
				}
			}
		}
	}()
	return func() int { close(end); return <-done }
}

// A worker that calls getenv so many times and ends.
const some = `<?php
echo "ready\n"; flush();
usleep(1500000);
for ($i = 0; $i < 1000; $i++) { getenv("NOSUCHVARIABLE", true); }
usleep(3000000);
`

func someCalls(t *testing.T) *testphp.Worker {
	t.Helper()
	script := t.TempDir() + "/some.php"
	if err := os.WriteFile(script, []byte(some), 0o600); err != nil {
		t.Fatal(err)
	}
	return testphp.Start(t, testphp.Stripped(t), script)
}

func TestEveryCallIsCounted(t *testing.T) {
	w := someCalls(t)
	pt, _ := libc(t, "getenv")
	s := open(t, Options{PID: w.PID, Points: []Point{pt}, Stack: 512}, math.MaxInt)
	var times []time.Duration
	stop := reading(t, s, func(sm *Sample) {
		times = append(times, sm.At)
		if sm.PID != w.PID || sm.TID != w.PID || sm.Point != 0 || len(sm.Stack) != 512 || sm.List.Short != nil {
			t.Errorf("%+v", sm)
		}
		// At getenv's entry the first argument is the name.
		if v, ok := sm.Regs.Arg(0); !ok || v == 0 || sm.Regs.SP() == 0 || uint64(sm.Regs.PC())%4096 != pt.Offset%4096 {
			t.Errorf("%+v", sm.Regs)
		}
	})
	time.Sleep(2500 * time.Millisecond)
	n := stop()
	if hits := s.Hits(); n != 1000 || hits[0] != 1000 || s.Lost() != 0 {
		t.Errorf("%d samples, %v hits, %d lost; want 1000", n, hits, s.Lost())
	}
	if !slices.IsSorted(times) && len(s.rings) == 1 {
		t.Error("times go back")
	}
}

func TestOnlySoManyHitsAreCopied(t *testing.T) {
	w := someCalls(t)
	pt, _ := libc(t, "getenv")
	s := open(t, Options{PID: w.PID, Points: []Point{pt}}, 300)
	stop := reading(t, s, func(*Sample) {})
	time.Sleep(2500 * time.Millisecond)
	if n, hits := stop(), s.Hits(); n != 300 || hits[0] != 1000 {
		t.Errorf("%d samples of %v hits; want 300 of 1000", n, hits)
	}
}

func TestHitsThatFindNoRoomAreCounted(t *testing.T) {
	pid, _ := counting(t)
	pt, _ := libc(t, "getenv")
	s := open(t, Options{PID: pid, Points: []Point{pt}}, math.MaxInt)
	time.Sleep(500 * time.Millisecond)
	s.Allow(0)
	time.Sleep(50 * time.Millisecond)
	n := reading(t, s, func(*Sample) {})()
	if s.Lost() == 0 || n == 0 || uint64(n)+s.Lost() > s.Hits()[0] {
		t.Errorf("%d read, %d lost, %v hits", n, s.Lost(), s.Hits())
	}
}

func TestOtherProcessesAreNotSeen(t *testing.T) {
	pid, _ := counting(t)
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	pt, _ := libc(t, "getenv")
	s := open(t, Options{PID: w.PID, Points: []Point{pt}}, math.MaxInt)
	stop := reading(t, s, func(*Sample) {})
	time.Sleep(300 * time.Millisecond)
	if n := stop(); n != 0 || s.Hits()[0] != 0 {
		t.Errorf("%d samples, %v hits of a process that calls nothing, while %d calls all the time", n, s.Hits(), pid)
	}
}

func TestAPausedSessionSeesNothing(t *testing.T) {
	pid, _ := counting(t)
	pt, _ := libc(t, "getenv")
	s := open(t, Options{PID: pid, Points: []Point{pt}, Stack: 64}, math.MaxInt)
	hits := func() uint64 {
		before := s.Hits()[0]
		time.Sleep(100 * time.Millisecond)
		return s.Hits()[0] - before
	}
	for range 3 {
		if hits() == 0 {
			t.Error("no hits while the breakpoint is set")
		}
		if err := s.Pause(); err != nil {
			t.Fatal(err)
		}
		if n := hits(); n != 0 {
			t.Errorf("%d hits while it is out", n)
		}
		if err := s.Resume(math.MaxInt); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
}

func TestTheClockSeesARunningThread(t *testing.T) {
	pid, _ := counting(t)
	s := open(t, Options{PID: pid, SampleEvery: 5 * time.Millisecond}, 0)
	if err := s.Watch([]int{pid, 1 << 22}); err != nil { // no such thread
		t.Fatal(err)
	}
	pcs := make(map[remote.Addr]bool)
	stop := reading(t, s, func(sm *Sample) {
		pcs[sm.Regs.PC()] = true
		if sm.Point != -1 || len(sm.Stack) == 0 {
			t.Errorf("%+v", sm)
		}
	})
	time.Sleep(time.Second)
	if err := s.Watch(nil); err != nil {
		t.Error(err)
	}
	if n := stop(); n < 20 || n > 210 || len(pcs) < 5 {
		t.Errorf("%d samples at %d places", n, len(pcs))
	}
}

func TestWhatCanNotBeWatchedIsToldInOneLine(t *testing.T) {
	pt, _ := libc(t, "getenv")
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	none := *w
	none.Kill()
	s, err := Open(Options{PID: w.PID, Points: []Point{pt}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Resume(1); !errors.Is(err, proc.ErrNoProcess) {
		t.Errorf("a process that has ended: %v", err)
	}
	if _, err := Open(Options{PID: 1, Follow: &Follow{NodeSize: MaxNode + 1}}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a node too large: %v", err)
	}
}

// TestNobodyIsRefusedKindly runs itself as an unprivileged user.
func TestNobodyIsRefusedKindly(t *testing.T) {
	if os.Getenv("PHPWHY_AS_NOBODY") == "1" {
		err := Supported()
		if !errors.Is(err, proc.ErrPermission) {
			t.Errorf("got %v", err)
		}
		t.Log(err)
		return
	}
	if err := Supported(); err != nil {
		testphp.Missing(t, err.Error())
	}
	self := t.TempDir() + "/test"
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, b, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(testphp.Require(t, "setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
		self, "-test.run=^TestNobodyIsRefusedKindly$", "-test.v")
	c.Env = append(os.Environ(), "PHPWHY_AS_NOBODY=1")
	c.Dir = "/"
	for dir := t.TempDir(); dir != "/tmp" && dir != "/"; dir = dir[:max(1, lastSlash(dir))] {
		_ = os.Chmod(dir, 0o755)
	}
	_ = os.Chmod(self[:lastSlash(self)], 0o755)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return 0
}
