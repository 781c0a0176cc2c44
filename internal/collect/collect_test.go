package collect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/workers"
)

// seen is a Sink that remembers.
type seen struct {
	looks  map[int]map[int]*capture.Capture // by round and pid
	fails  map[int]error
	gone   []int
	ended  string
	rounds int
	during func(round int)
	broken error // what Look returns
}

func newSeen() *seen {
	return &seen{looks: make(map[int]map[int]*capture.Capture), fails: make(map[int]error)}
}

func (s *seen) Begin(capture.Header) error { return nil }
func (s *seen) Round(n, _ int) error       { s.looks[n] = make(map[int]*capture.Capture); return nil }
func (s *seen) Look(w *workers.Worker, n int, _ time.Duration, c *capture.Capture) error {
	s.looks[n][w.PID] = c
	return s.broken
}
func (s *seen) Fail(pid, _ int, err error) error    { s.fails[pid] = err; return nil }
func (s *seen) Gone(w *workers.Worker, _ int) error { s.gone = append(s.gone, w.PID); return nil }
func (s *seen) End(rounds int, ended string) error  { s.rounds, s.ended = rounds, ended; return nil }
func (s *seen) Done(n int) error {
	if s.during != nil {
		s.during(n)
	}
	return nil
}

func script(t testing.TB, name, code string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("<?php\n"+code), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// innermost is the innermost PHP function of a look, and the innermost code's line.
func innermost(c *capture.Capture) (function string, line int) {
	for i := range c.Stacks {
		for _, f := range c.Stacks[i].Frames {
			if f.Kind != stack.PHP {
				continue
			}
			if function == "" {
				function = f.Function
			}
			if !f.Internal {
				return function, f.Line
			}
		}
	}
	return function, 0
}

func TestOneRoundSeesEveryWorkerAndWhoHoldsALock(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "a.lock")
	hold := script(t, "hold.php", fmt.Sprintf("$f = fopen('%s', 'c');\nflock($f, LOCK_EX);\necho \"ready\\n\"; flush();\nsleep(600);\n", lock))
	wait := script(t, "wait.php", fmt.Sprintf("$f = fopen('%s', 'c');\necho \"ready\\n\"; flush();\nflock($f, LOCK_EX);\n", lock))
	p := testphp.FPM(t, testphp.StrippedFPM(t), 8)
	holder := p.Hang(t, hold, "")
	var waiters []int
	for range 4 {
		waiters = append(waiters, p.Hang(t, wait, "q=1"))
	}
	busy := p.Hang(t, testphp.Hang(t, "cpu.php-loop.php"), "")
	s := newSeen()
	res, err := Run(context.Background(), observe.New(), Options{Filter: workers.Filter{PIDs: p.Workers}}, s)
	if err != nil || res.Looks != 8 || res.Failures != 0 || s.ended != "done" || s.rounds != 1 {
		t.Fatalf("%+v, %v, %+v", res, err, s)
	}
	if f, line := innermost(s.looks[1][holder]); f != "sleep" || line != 5 {
		t.Errorf("the holder is in %s, line %d", f, line)
	}
	for _, pid := range waiters {
		c := s.looks[1][pid]
		f, line := innermost(c)
		if f != "flock" || line != 4 || c.Facts["lock.holder_pid"] != int64(holder) || c.Facts["lock.path"] != lock || c.Facts["proc.state"] != "S" {
			t.Errorf("%d is in %s, line %d: %v", pid, f, line, c.Facts)
		}
		if q := c.Target.Request; q == nil || q.URI != "/wait.php?q=1" {
			t.Errorf("%d: %+v", pid, c.Target.Request)
		}
	}
	if c := s.looks[1][busy]; c.Facts["lock.kind"] != nil || len(c.Modules) == 0 || c.Modules[0].BuildID == "" {
		t.Errorf("%+v %+v", c.Facts, c.Modules)
	}
	for pid, c := range s.looks[1] {
		if o := c.Observation; o.Samples != 1 || o.PausedUSMax <= 0 {
			t.Errorf("%d: %+v", pid, o)
		}
		if st := testphp.State(t, pid); strings.ContainsAny(st, "tT") {
			t.Errorf("%d is left in state %s", pid, st)
		}
	}
}

func TestWorkersThatComeAndGoAreFollowed(t *testing.T) {
	sleep := script(t, "mark-of-this-test.php", "echo \"ready\\n\";\nsleep(600);\n")
	first := testphp.Start(t, testphp.Stripped(t), sleep)
	s := newSeen()
	var second *testphp.Worker
	s.during = func(n int) {
		switch n {
		case 1:
			second = testphp.Start(t, testphp.Stripped(t), sleep)
		case 2:
			first.Kill()
		}
	}
	_, err := Run(context.Background(), observe.New(),
		Options{Filter: workers.Filter{Match: regexp.MustCompile("mark-of-this-test")}, Every: 10 * time.Millisecond, For: 2 * time.Second}, s)
	if err != nil {
		t.Fatal(err)
	}
	if s.looks[1][first.PID] == nil || s.looks[2][first.PID] == nil || s.looks[2][second.PID] == nil || s.looks[3][second.PID] == nil || s.looks[3][first.PID] != nil {
		t.Errorf("looks: %v", s.looks)
	}
	if !slices.Equal(s.gone, []int{first.PID}) {
		t.Errorf("gone: %v, want %d", s.gone, first.PID)
	}
	// From the second round on the use of a processor is known.
	if c := s.looks[s.rounds][second.PID]; c == nil || c.Facts["proc.cpu_pct"] == nil {
		t.Errorf("round %d: no use of a processor is known", s.rounds)
	}
}

func TestAWorkerThatFailsSpoilsNoOther(t *testing.T) {
	php := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	other := testphp.StartCommand(t, "/bin/sh", "-c", "echo ready; while :; do sleep 1; done")
	s := newSeen()
	res, err := Run(context.Background(), observe.New(), Options{Filter: workers.Filter{PIDs: []int{php.PID, other.PID, 1 << 30}}, Every: time.Millisecond, For: 20 * time.Millisecond}, s)
	if err != nil {
		t.Fatal(err)
	}
	if s.looks[1][php.PID] == nil || res.Failures != 2 || len(s.fails) != 2 || !errors.Is(s.fails[1<<30], proc.ErrNoProcess) || s.fails[other.PID] == nil {
		t.Errorf("%+v: %v", res, s.fails)
	}
	_, err = Run(context.Background(), observe.New(), Options{Filter: workers.Filter{PIDs: []int{1 << 30}}}, newSeen())
	if !errors.Is(err, proc.ErrNoProcess) {
		t.Errorf("nobody at all: %v", err)
	}
}

func TestACancelledCollectionEndsWhole(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	ctx, cancel := context.WithCancel(context.Background())
	s := newSeen()
	s.during = func(n int) {
		if n == 3 {
			cancel()
		}
	}
	_, err := Run(ctx, observe.New(), Options{Filter: workers.Filter{PIDs: []int{w.PID}}, Every: time.Millisecond}, s)
	if err != nil || s.ended != "cancelled" || s.rounds != 3 {
		t.Errorf("%v, %+v", err, s)
	}
	s = newSeen()
	s.broken = errors.New("no space left")
	if _, err := Run(context.Background(), observe.New(), Options{Filter: workers.Filter{PIDs: []int{w.PID}}, Every: time.Millisecond}, s); !errors.Is(err, s.broken) {
		t.Errorf("a sink that fails: %v", err)
	}
	if !testphp.Alive(w.PID) {
		t.Error("the worker is gone")
	}
}

func TestWithBreakpointsWorkersAreObservedAsByAttach(t *testing.T) {
	var pids []int
	for range 2 {
		pids = append(pids, testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php")).PID)
	}
	s := newSeen()
	_, err := Run(context.Background(), observe.New(), Options{Filter: workers.Filter{PIDs: pids}, Break: []string{"mmap", "mremap"}, Slice: 500 * time.Millisecond, MaxPause: 0.2}, s)
	if err != nil || len(s.fails) > 0 {
		t.Fatal(err, s.fails)
	}
	for _, pid := range pids {
		c := s.looks[1][pid]
		if c == nil || c.Observation.Stops == 0 || len(c.Observation.Breakpoints) != 2 {
			t.Errorf("%d: %+v", pid, c)
		}
	}
}

func TestMoreWorkersAreLookedAtSideBySideOnABusyHost(t *testing.T) {
	idle, busy, unknown := sideBySide("0.10 0.2 0.3 1/2 3"), sideBySide("4000.00 1 1 1/2 3"), sideBySide("")
	if idle < 2 || busy != 4*idle || unknown != idle {
		t.Errorf("%d, %d, %d", idle, busy, unknown)
	}
}

func TestMain(m *testing.M) {
	// As the command does: a tracer must not wait for its turn.
	runtime.GOMAXPROCS(runtime.NumCPU() + 2)
	os.Exit(m.Run())
}

func TestRoundsBeginAsPlannedHoweverLongTheyTake(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	o, opt := observe.New(), Options{Filter: workers.Filter{PIDs: []int{w.PID}}}
	if _, err := Run(context.Background(), o, opt, newSeen()); err != nil { // reads its files
		t.Fatal(err)
	}
	s := newSeen()
	s.during = func(int) { time.Sleep(100 * time.Millisecond) }
	opt.Every, opt.For = 500*time.Millisecond, 1500*time.Millisecond
	if _, err := Run(context.Background(), o, opt, s); err != nil || s.rounds != 4 {
		t.Errorf("%v: %d rounds, want those at 0, 0.5, 1 and 1.5 s", err, s.rounds)
	}
}

// Workers that wait for one lock wake each other in the kernel when they are stopped.
func TestManyWaitersForOneLockAreKnownToWaitOn(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "a.lock")
	hold := script(t, "hold.php", fmt.Sprintf("$f = fopen('%s', 'c');\nflock($f, LOCK_EX);\necho \"ready\\n\"; flush();\nsleep(600);\n", lock))
	wait := script(t, "wait.php", fmt.Sprintf("$f = fopen('%s', 'c');\necho \"ready\\n\"; flush();\nflock($f, LOCK_EX);\n", lock))
	p := testphp.FPM(t, testphp.StrippedFPM(t), 9)
	holder := p.Hang(t, hold, "")
	var waiters []int
	for range 8 {
		waiters = append(waiters, p.Hang(t, wait, ""))
	}
	for name, opt := range map[string]Options{
		"looks":       {Every: 200 * time.Millisecond, For: 2 * time.Second},
		"breakpoints": {Break: []string{"mmap"}, Slice: time.Second, MaxPause: 0.2},
	} {
		opt.Filter.PIDs = waiters
		s := newSeen()
		if _, err := Run(context.Background(), observe.New(), opt, s); err != nil {
			t.Fatal(err)
		}
		// Nobody chose the holder, and it is looked at all the same.
		if c := s.looks[s.rounds][holder]; c == nil || c.Facts[ForHolder] != true {
			t.Errorf("%s: the holder: %+v", name, c)
		}
		for _, pid := range waiters {
			c := s.looks[s.rounds][pid]
			// As rules for locks ask.
			for fact, least := range map[string]float64{"wait.lasting_s": 0.25, "stack.same_call_s": 0.5} {
				if v, _ := c.Facts[fact].(float64); v < least {
					t.Errorf("%s: %s of %d is %v", name, fact, pid, c.Facts[fact])
				}
			}
		}
	}
}
