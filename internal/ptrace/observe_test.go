package ptrace

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
)

func TestEachEngineStopsAtTheFirstInstruction(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 1, "hot")
			bps := at(t, w.pid, "mremap", "mmap")
			wrong := 0
			var last uint64
			res, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: bps, MaxStops: 2000, For: 5 * time.Second},
				HandlerFunc(func(s *Stop) Verdict {
					old, _ := s.Regs.Arg(1)
					want, _ := s.Regs.Arg(2)
					// At a system call the function has come a little further.
					behind, _ := s.Regs.PC().Distance(bps[0].Addr)
					if behind > 0 && (engine != EngineSyscall || behind > 64) || s.Regs.PC() < bps[0].Addr || s.Breakpoint != 0 || s.TID != w.pid || old+want != 12288 ||
						(last != 0 && old != last) || s.Regs.TLS == 0 {
						wrong++
					}
					last = want
					return Continue
				}))
			if err != nil {
				t.Fatal(err)
			}
			if res.Ended != EndStops || res.Hits[0] != 2000 || wrong != 0 || res.Engine != engine {
				t.Errorf("%+v, %d wrong stops", res, wrong)
			}
			w.awaitLoops(100)
			w.mustBeClean()
		})
	}
}

func TestStopsPerSecond(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 1, "hot")
			res, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: at(t, w.pid, "mremap"), For: time.Second}, HandlerFunc(nop))
			if err != nil {
				t.Fatal(err)
			}
			rate := float64(res.Hits[0]) / res.Duration.Seconds()
			t.Logf("%s: %.0f stops/s, paused %v of %v, longest %v", engine, rate, res.PausedTotal, res.Duration, res.PausedMax)
			w.awaitLoops(100)
			w.mustBeClean()
		})
	}
}

// Stops that nobody could look at don't count towards their number.
func TestMissedStopsDoNotCount(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 1, "hot")
			seen, missed := 0, 0
			res, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: at(t, w.pid, "mremap"), MaxStops: 10, For: 20 * time.Second},
				HandlerFunc(func(*Stop) Verdict {
					if missed < 2*seen+3 {
						missed++
						return Missed
					}
					seen++
					return Continue
				}))
			if err != nil || res.Ended != EndStops || seen != 10 || missed < 20 || res.Hits[0] != uint64(seen+missed) {
				t.Errorf("%d seen, %d missed, %v hits, ended by %v, %v", seen, missed, res.Hits, res.Ended, err)
			}
		})
	}
}

func TestObservationEnds(t *testing.T) {
	cancelled := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 100*time.Millisecond)
	}
	forever := func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) }
	for _, engine := range engines {
		for _, c := range []struct {
			name, mode string
			ctx        func() (context.Context, context.CancelFunc)
			o          Options
			h          func(*Stop) Verdict
			want       EndReason
			alive      bool
		}{
			{"when the context is cancelled", "hot", cancelled, Options{}, nop, EndCancelled, true},
			{"when cancelled while nothing happens", "idle", cancelled, Options{}, nop, EndCancelled, true},
			{"after a duration", "hot", forever, Options{For: 50 * time.Millisecond}, nop, EndDuration, true},
			{"after a duration while nothing happens", "idle", forever, Options{For: 50 * time.Millisecond}, nop, EndDuration, true},
			{"after a number of stops", "hot", forever, Options{MaxStops: 10}, nop, EndStops, true},
			{"when the handler wants", "hot", forever, Options{}, func(*Stop) Verdict { return Finish }, EndFinished, true},
			{"when the handler panics", "hot", forever, Options{}, func(*Stop) Verdict { panic("handler") }, EndError, true},
			{"when the target exits", "exit", forever, Options{}, nop, EndExited, false},
			{"when the target calls exec", "exec", forever, Options{}, nop, EndExec, true},
			{"when the target calls exec from many threads", "exec", forever, Options{}, nop, EndExec, true},
		} {
			t.Run(engine+"/"+c.name, func(t *testing.T) {
				threads := 1
				if c.name == "when the target calls exec from many threads" {
					threads = 3
				}
				w := start(t, threads, c.mode)
				c.o.Engine, c.o.Breakpoints = engine, at(t, w.pid, "mremap")
				ctx, cancel := c.ctx()
				defer cancel()
				res, err := Observe(ctx, w.pid, c.o, HandlerFunc(c.h))
				if (err != nil) != (c.want == EndError) {
					t.Fatal(err)
				}
				if res.Ended != c.want {
					t.Errorf("ended: %s, want %s", res.Ended, c.want)
				}
				if c.want == EndExited && (res.Exit != Exit{Known: true, Status: 7} || res.Hits[0] == 0) {
					t.Errorf("exit: %+v, hits %v", res.Exit, res.Hits)
				}
				if !c.alive {
					return
				}
				if c.mode != "idle" {
					w.awaitLoops(100)
				}
				w.mustBeClean()
			})
		}
	}
}

func TestSamplesFindThreadsAnywhere(t *testing.T) {
	w := start(t, 3, "idle")
	seen := map[int]int{}
	res, err := Observe(t.Context(), w.pid, Options{SampleEvery: 5 * time.Millisecond, For: 200 * time.Millisecond},
		HandlerFunc(func(s *Stop) Verdict {
			if s.Kind == KindSample && s.Breakpoint == -1 && s.Regs.PC() != 0 {
				seen[s.TID]++
			}
			return Continue
		}))
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 3 || seen[w.pid] < 5 || res.Samples < 10 {
		t.Errorf("%v %+v", seen, res)
	}
	w.mustBeClean()
}

// Addresses that were looked up in one program must not be used in the next.
func TestAProgramThatWasReplacedIsLeftAlone(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 1, "hot")
			p, err := proc.Open(w.pid)
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Engine: engine, Breakpoints: at(t, w.pid, "mremap"), MaxStops: 3, For: 5 * time.Second, Program: p.Program()}
			if res, err := Observe(t.Context(), w.pid, o, HandlerFunc(nop)); err != nil || res.Ended != EndStops {
				t.Fatalf("%+v, %v", res, err)
			}
			other, err := proc.Open(start(t, 1, "hot").pid)
			if err != nil {
				t.Fatal(err)
			}
			o.Program = other.Program()
			if res, err := Observe(t.Context(), w.pid, o, HandlerFunc(nop)); err != nil || res.Ended != EndExec || res.Hits[0] != 0 {
				t.Fatalf("%+v, %v", res, err)
			}
			w.awaitLoops(100)
			w.mustBeClean()
		})
	}
}

func TestNewThreadsAndChildren(t *testing.T) {
	for _, engine := range engines {
		for _, mode := range []string{"churn", "fork", "spawn"} {
			t.Run(engine+"/"+mode, func(t *testing.T) {
				w := start(t, 2, mode)
				bps := at(t, w.pid, "mremap")
				tids := map[int]bool{}
				o := Options{Engine: engine, Breakpoints: bps, For: 500 * time.Millisecond}
				res, err := Observe(t.Context(), w.pid, o, HandlerFunc(func(s *Stop) Verdict {
					tids[s.TID] = true
					return Continue
				}))
				if err != nil {
					t.Fatal(err)
				}
				n := w.count(children)
				t.Logf("%d threads hit, %d children, %+v", len(tids), n, res)
				if mode == "churn" && len(tids) < 4 {
					t.Errorf("only %d threads were stopped", len(tids))
				}
				w.awaitLoops(1000)
				if w.count(failed) != 0 || mode != "churn" && w.count(children) == 0 {
					t.Errorf("%d children ended well, %d did not", w.count(children), w.count(failed))
				}
				w.mustBeClean()
			})
		}
	}
}

func TestMaxPauseLeavesTheWorkerItsTime(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			w := start(t, 1, "hot")
			res, err := Observe(t.Context(), w.pid, Options{Engine: engine, Breakpoints: at(t, w.pid, "mremap"), For: time.Second, MaxPause: 0.05},
				HandlerFunc(func(*Stop) Verdict { time.Sleep(100 * time.Microsecond); return Continue }))
			if err != nil {
				t.Fatal(err)
			}
			share := res.PausedTotal.Seconds() / res.Duration.Seconds()
			if share > 0.10 || res.Disarmed < 3 || res.Hits[0] == 0 {
				t.Errorf("paused %.1f%%: %+v", share*100, res)
			}
			w.mustBeClean()
		})
	}
}

func TestFreeze(t *testing.T) {
	w := start(t, 4, "hot")
	for range 20 {
		var got []ThreadStop
		paused, err := Freeze(t.Context(), w.pid, func(ts []ThreadStop) error {
			got = append(got, ts...)
			a := w.count(loops)
			time.Sleep(time.Millisecond)
			if b := w.count(loops); a != b {
				t.Errorf("it ran on: %d, %d", a, b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 4 || got[0].TID != w.pid || paused > 2*time.Second {
			t.Errorf("%d threads, paused %v", len(got), paused)
		}
		for _, s := range got {
			if s.Err != nil || s.Regs.PC() == 0 || s.Regs.SP() == 0 {
				t.Errorf("%+v", s)
			}
		}
		w.mustBeClean()
	}
	w.awaitLoops(100)
}

func TestFreezePauseIsShort(t *testing.T) {
	w := start(t, 1, "hot")
	var all []time.Duration
	for range 50 {
		d, err := Freeze(t.Context(), w.pid, func([]ThreadStop) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	// The least of many is what the code takes; the rest is the machine's load.
	least := slices.Min(all)
	t.Logf("pause: least %v, median %v", least, median(all))
	if least > 2*time.Millisecond {
		t.Errorf("the shortest pause was %v", least)
	}
}
