package ptrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/internal/proc"
)

func TestSignalsReachTheWorkerUnchanged(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 2, "hot")
			bps := at(t, w.pid, "mremap")
			sent, total := uint64(0), uint64(0)
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for i := int32(1); ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					// A standard signal is not queued twice, so each is awaited.
					if sigqueue(w.pid, unix.SIGUSR1, i) == nil {
						sent, total = sent+1, total+uint64(i)
					}
					for end := time.Now().Add(2 * time.Second); w.count(signals) < sent && time.Now().Before(end); {
						time.Sleep(100 * time.Microsecond)
					}
				}
			}()
			for range 3 {
				if _, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: bps, SampleEvery: time.Millisecond, For: 150 * time.Millisecond}, HandlerFunc(nop)); err != nil {
					t.Error(err)
				}
			}
			close(stop)
			<-done
			if sent < 50 || w.count(signals) != sent || w.count(sum) != total {
				t.Errorf("sent %d with sum %d, got %d with %d", sent, total, w.count(signals), w.count(sum))
			}
			w.mustBeClean()
		})
	}
}

func TestForeignSIGTRAPsAreTheWorkers(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine+"/default action", func(t *testing.T) {
			w := start(t, 1, "trap")
			res, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: at(t, w.pid, "mremap"), For: 5 * time.Second}, HandlerFunc(nop))
			if err != nil || res.Ended != EndExited || res.Exit.Signal != unix.SIGTRAP {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
	t.Run("own handler", func(t *testing.T) {
		w := start(t, 1, "own")
		bps := at(t, w.pid, "mremap")
		before := w.count(traps)
		res, err := Observe(t.Context(), w.pid, Options{Engine: EngineHWBP, Breakpoints: bps, For: 200 * time.Millisecond}, HandlerFunc(nop))
		if err != nil || res.Hits[0] == 0 || w.count(traps) == before {
			t.Errorf("%+v, %v, %d traps", res, err, w.count(traps)-before)
		}
		_, err = Observe(t.Context(), w.pid, Options{Engine: EngineInt3, Breakpoints: bps, For: 200 * time.Millisecond}, HandlerFunc(nop))
		if !errors.Is(err, ErrOwnAction) {
			t.Errorf("int3: %v", err)
		}
		before = w.count(traps)
		w.awaitLoops(1000)
		if w.count(traps) == before {
			t.Error("the handler is gone")
		}
	})
}

func TestStoppedWorkerStaysStopped(t *testing.T) {
	for _, engine := range append([]string{"freeze", "sample"}, engines...) {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 3, "hot")
			_ = unix.Kill(w.pid, unix.SIGSTOP)
			for !strings.HasPrefix(statusField(w.pid, "State"), "T") {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(20 * time.Millisecond)
			before := w.count(loops)
			o := Options{For: 50 * time.Millisecond}
			var err error
			var res Result
			switch engine {
			case "freeze":
				_, err = Freeze(t.Context(), w.pid, func(ts []ThreadStop) error {
					if len(ts) != 3 || !ts[0].Stopped || ts[0].Err != nil || ts[0].Regs.PC() == 0 {
						return fmt.Errorf("%+v", ts)
					}
					return nil
				})
			case "sample":
				o.SampleEvery = 10 * time.Millisecond
				if res, err = Observe(t.Context(), w.pid, o, HandlerFunc(nop)); res.Samples == 0 {
					t.Errorf("%+v", res)
				}
			default:
				o.Engine, o.Breakpoints = engine, at(t, w.pid, "mremap")
				_, err = Observe(t.Context(), w.pid, o, HandlerFunc(nop))
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			if s := statusField(w.pid, "State"); !strings.HasPrefix(s, "T") || w.count(loops) != before {
				t.Errorf("state %s, %d loops more", s, w.count(loops)-before)
			}
			w.mustBeClean()
			_ = unix.Kill(w.pid, unix.SIGCONT)
			w.awaitLoops(1000)
			w.mustBeClean()
		})
	}
}

func TestStopAndContinueDuringAnObservation(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 2, "hot")
			bps := at(t, w.pid, "mremap")
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var hits atomic.Uint64
			more := func() bool {
				from := hits.Load()
				for ctx.Err() == nil && hits.Load() < from+50 {
					time.Sleep(time.Millisecond)
				}
				return ctx.Err() == nil
			}
			ran, resumed := ^uint64(0), false
			go func() {
				defer cancel()
				if !more() {
					return
				}
				_ = unix.Kill(w.pid, unix.SIGSTOP)
				time.Sleep(200 * time.Millisecond)
				a := w.count(loops)
				time.Sleep(50 * time.Millisecond)
				ran = w.count(loops) - a
				_ = unix.Kill(w.pid, unix.SIGCONT)
				resumed = more()
			}()
			res, err := Observe(ctx, w.pid, Options{Engine: engine, Breakpoints: bps}, HandlerFunc(func(*Stop) Verdict {
				hits.Add(1)
				return Continue
			}))
			if err != nil || res.Ended != EndCancelled || ran != 0 || !resumed {
				t.Fatalf("%+v, %v, %d loops while stopped, resumed %t", res, err, ran, resumed)
			}
			w.mustBeClean()
		})
	}
}

func TestRefusals(t *testing.T) {
	traced := start(t, 1, "idle")
	strace := exec.Command("strace", "-o", os.DevNull, "-p", fmt.Sprint(traced.pid))
	if err := strace.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = strace.Process.Signal(unix.SIGTERM); _ = strace.Wait() }()
	for end := time.Now().Add(5 * time.Second); statusField(traced.pid, "TracerPid") == "0" && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	zombie := exec.Command("/bin/true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = zombie.Wait() }()
	time.Sleep(50 * time.Millisecond)
	for _, c := range []struct {
		name string
		pid  int
		want error
		says string
	}{
		{"no such process", 1 << 22, proc.ErrNoProcess, ""},
		{"zombie", zombie.Process.Pid, proc.ErrZombie, "parent"},
		{"kernel thread", 2, proc.ErrKernelThread, ""},
		{"already traced", traced.pid, ErrTraced, fmt.Sprintf("by %d (\"strace\")", strace.Process.Pid)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Freeze(t.Context(), c.pid, func([]ThreadStop) error { return nil })
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("freeze: %v", err)
			}
			_, err = Observe(t.Context(), c.pid, Options{}, HandlerFunc(nop))
			if !errors.Is(err, c.want) {
				t.Errorf("observe: %v", err)
			}
		})
	}
	w := start(t, 1, "hot")
	many := at(t, w.pid, "mremap", "mmap", "munmap", "brk", "madvise")
	_, err := Observe(t.Context(), w.pid, Options{Engine: EngineHWBP, Breakpoints: many}, HandlerFunc(nop))
	if !errors.Is(err, ErrTooMany) {
		t.Errorf("five hardware breakpoints: %v", err)
	}
	res, err := Observe(t.Context(), w.pid, Options{Breakpoints: many, MaxStops: 5}, HandlerFunc(nop))
	if err != nil || res.Engine != EngineInt3 || len(res.Why) != 2 || !errors.Is(res.Why[0].Err, ErrTooMany) {
		t.Errorf("auto: %+v, %v", res, err)
	}
	_, err = Observe(t.Context(), w.pid, Options{Breakpoints: []Breakpoint{{Addr: 8, Name: "nowhere"}}, Engine: EngineInt3}, HandlerFunc(nop))
	if err == nil {
		t.Error("a breakpoint in no memory was accepted")
	}
	w.mustBeClean()
}

// Nothing is left in this process either.
func TestNothingLeaks(t *testing.T) {
	w := start(t, 2, "hot")
	bps := at(t, w.pid, "mremap")
	count := func() (fds, kids int) {
		d, _ := os.ReadDir("/proc/self/fd")
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			kids += len(strings.Fields(string(b)))
		}
		return len(d), kids
	}
	once := func() {
		for _, engine := range engines {
			if _, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: bps, MaxStops: 5}, HandlerFunc(nop)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Freeze(t.Context(), w.pid, func([]ThreadStop) error { return errors.New("no") }); err == nil {
			t.Fatal("the error was lost")
		}
	}
	once()
	fds, kids := count()
	for range 10 {
		once()
	}
	if f, k := count(); f > fds || k > kids {
		t.Errorf("%d descriptors and %d children, before %d and %d", f, k, fds, kids)
	}
}

func TestSpeedAfterwardsIsAsBefore(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 1, "hot")
			bps := at(t, w.pid, "mremap")
			// Per second on a processor, so that other load doesn't count.
			cpu := func() (ns float64) {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", w.pid))
				_, _ = fmt.Sscan(string(b), &ns)
				return ns
			}
			speed := func() float64 {
				a, from := w.count(loops), cpu()
				time.Sleep(150 * time.Millisecond)
				return float64(w.count(loops)-a) / (cpu() - from)
			}
			// The machine has slow moments. A breakpoint that stayed behind
			// would slow down every attempt.
			ratio := 0.0
			for range 3 {
				var before, after []float64
				for range 7 {
					before = append(before, speed())
					if _, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: bps, For: 50 * time.Millisecond}, HandlerFunc(nop)); err != nil {
						t.Fatal(err)
					}
					after = append(after, speed())
				}
				ratio = median(after) / median(before)
				t.Logf("speed after to before: %.2f", ratio)
				if ratio >= 0.9 {
					return
				}
			}
			t.Errorf("speed after to before: %.2f", ratio)
		})
	}
}

func TestCommandIsObservedFromItsEntryPoint(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := &worker{t: t}
			args := w.prepare(1, "hot")
			var first uint64
			res, child, err := ObserveCommand(t.Context(), Command{Args: args}, func(pid int) (Options, error) {
				if w.count(loops) != 0 {
					t.Error("it has run already")
				}
				return Options{Engine: engine, Breakpoints: at(t, pid, "mmap", "mremap"), MaxStops: 50}, nil
			}, HandlerFunc(func(s *Stop) Verdict {
				if s.Seq == 0 {
					first = uint64(s.Breakpoint)
				}
				return Continue
			}))
			if err != nil || child == nil {
				t.Fatal(res, err)
			}
			defer func() { _ = child.Kill(); _, _ = child.Wait() }()
			w.pid = res.PID
			if first != 0 || res.Hits[0] == 0 || res.Hits[1] == 0 {
				t.Errorf("%+v, first stop at %d", res, first)
			}
			w.awaitLoops(1000)
			w.mustBeClean()
		})
	}
	t.Run("that ends", func(t *testing.T) {
		res, child, err := ObserveCommand(t.Context(), Command{Args: []string{"sh", "-c", "exit 3"}}, func(pid int) (Options, error) {
			return Options{Breakpoints: at(t, pid, "mmap")}, nil
		}, HandlerFunc(nop))
		if err != nil || child != nil || res.Ended != EndExited || res.Exit.Status != 3 {
			t.Errorf("%+v, %v, %v", res, child, err)
		}
	})
	t.Run("that does not exist", func(t *testing.T) {
		_, _, err := ObserveCommand(t.Context(), Command{Args: []string{"/no/such/program"}}, nil, nil)
		if !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

// SIGSTOP can't be masked, so it also comes while breakpoints are being set
// or removed. It must not be lost, nor stop the observation from ending.
func TestStopAtAnyMoment(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 2, "hot")
			bps := at(t, w.pid, "mremap")
			for i := range 40 {
				go func() {
					time.Sleep(time.Duration(i) * 100 * time.Microsecond)
					_ = unix.Kill(w.pid, unix.SIGSTOP)
				}()
				if _, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: bps, MaxStops: 20, For: 6 * time.Millisecond, NoGuard: true}, HandlerFunc(nop)); err != nil {
					t.Fatal(err)
				}
				for end := time.Now().Add(2 * time.Second); !strings.HasPrefix(statusField(w.pid, "State"), "T"); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("round %d: SIGSTOP was lost: %s", i, statusField(w.pid, "State"))
					}
				}
				w.mustBeClean()
				_ = unix.Kill(w.pid, unix.SIGCONT)
				w.awaitLoops(10)
			}
			w.mustBeClean()
		})
	}
}
