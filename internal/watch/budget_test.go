package watch

import (
	"testing"
	"time"
)

// hanging are n workers whose requests are old, from the first tick on.
type hanging struct {
	e   *Engine
	ids []ID
}

func hang(p Policy, n int) *hanging {
	p.Age = seconds(60)
	h := &hanging{e: New(p)}
	for i := range n {
		h.ids = append(h.ids, ID{PID: i + 1, Start: uint64(1000 - i)})
	}
	return h
}

func (h *hanging) tick(s float64, ids ...ID) {
	var samples []Sample
	for _, id := range ids {
		samples = append(samples, Sample{ID: id, Alive: time.Hour})
	}
	h.e.Tick(at(s), samples, func(ID) Request {
		return Request{State: InProgress, Start: at(-1000), Same: "x"}
	})
}

func (h *hanging) next(t *testing.T, s float64, pid int) {
	t.Helper()
	got, ok := h.e.Next(at(s))
	if pid == 0 && ok || pid != 0 && (!ok || got.PID != pid) {
		t.Fatalf("at %vs: next is %v (%v), want %d", s, got.PID, ok, pid)
	}
}

func TestOneObservationAtATime(t *testing.T) {
	h := hang(Policy{}, 3)
	h.tick(0, h.ids...)
	h.next(t, 0, 1)
	h.tick(1, h.ids...)
	h.next(t, 1, 0)
	h.e.Done(at(3), Outcome{})
	h.next(t, 3, 2)
	if s := h.e.Stats(); s.Delayed[Occupied] != 2 || s.Due != 1 || s.Started != 2 {
		t.Errorf("stats %+v, want 2 delayed, 1 due, 2 started", s)
	}
}

func TestTheLongestWaitingIsFirst(t *testing.T) {
	h := hang(Policy{}, 3)
	h.tick(0, h.ids[2])
	h.tick(1, h.ids...)
	h.next(t, 1, 3)
}

func TestCooldownIsPerWorkerAndCountsFromTheEnd(t *testing.T) {
	h := hang(Policy{Cooldown: seconds(100)}, 2)
	h.tick(0, h.ids[0])
	h.next(t, 0, 1)
	h.e.Done(at(3), Outcome{})
	for _, s := range []float64{3, 50, 102} {
		h.tick(s, h.ids[0])
		h.next(t, s, 0)
	}
	h.tick(102.5, h.ids...)
	h.next(t, 102.5, 2)
	h.e.Done(at(102.8), Outcome{})
	h.tick(103, h.ids...)
	h.next(t, 103, 1)
}

func TestAWorkerWithAReusedPidIsAnotherOne(t *testing.T) {
	h := hang(Policy{Cooldown: seconds(100)}, 1)
	h.tick(0, h.ids...)
	h.next(t, 0, 1)
	h.e.Done(at(1), Outcome{})
	h.tick(2, ID{PID: 1, Start: 5})
	h.next(t, 2, 1)
}

func TestHourlyCap(t *testing.T) {
	h := hang(Policy{MaxPerHour: 2}, 4)
	h.tick(0, h.ids...)
	for i, s := range []float64{0, 10} {
		h.next(t, s, i+1)
		h.e.Done(at(s+3), Outcome{})
	}
	h.tick(20, h.ids[2:]...)
	h.next(t, 20, 0)
	h.next(t, 3599, 0)
	if n := h.e.Stats().Delayed[HourlyCap]; n != 2 {
		t.Errorf("%d delayed by the cap, want 2, each once", n)
	}
	h.next(t, 3600, 3)
	h.e.Done(at(3601), Outcome{})
	h.next(t, 3602, 0)
	h.next(t, 3610, 4)
}

func TestAWorkerThatHadEndedCostsNoBudget(t *testing.T) {
	h := hang(Policy{MaxPerHour: 1, MaxPause: 0.01}, 2)
	h.tick(0, h.ids...)
	h.next(t, 0, 1)
	h.e.Done(at(0.1), Outcome{Gone: true, Paused: seconds(1)})
	h.next(t, 0.1, 2)
}

func TestPauseBudgetStretchesPauses(t *testing.T) {
	h := hang(Policy{MaxPause: 0.01}, 2)
	h.tick(0, h.ids...)
	h.next(t, 0, 1)
	h.e.Done(at(3), Outcome{Paused: 200 * time.Millisecond})
	h.next(t, 19.9, 0)
	h.next(t, 20, 2)
	if n := h.e.Stats().Delayed[PauseBudget]; n != 1 {
		t.Errorf("%d delayed by the pause budget, want 1", n)
	}
}

func TestWorkersThatEndOrRecoverAreNotObserved(t *testing.T) {
	h := hang(Policy{}, 3)
	h.tick(0, h.ids...)
	h.next(t, 0, 1)
	h.tick(1, h.ids[0], h.ids[2]) // the second has ended
	h.e.Tick(at(2), []Sample{{ID: h.ids[0], Alive: time.Hour}, {ID: h.ids[2], Alive: time.Hour}}, func(ID) Request {
		return Request{State: NoRequest} // the third has answered
	})
	h.e.Done(at(3), Outcome{})
	h.next(t, 3, 0)
	if s := h.e.Stats(); s.Gone != 1 || s.Recovered != 1 || s.Due != 0 {
		t.Errorf("stats %+v, want one gone and one recovered", s)
	}
}

func TestMemoryIsBoundedByTheWorkersThereAre(t *testing.T) {
	e := New(policy)
	for i := range 10_000 {
		e.Tick(at(float64(i)), []Sample{{ID: ID{PID: i, Start: uint64(i)}, Alive: time.Hour}}, func(ID) Request { return Request{State: NoRequest} })
	}
	if n := len(e.workers); n != 1 {
		t.Errorf("%d workers are remembered, want 1", n)
	}
}

func TestDoneWithoutAnObservationChangesNothing(t *testing.T) {
	e := New(Policy{MaxPause: 0.5})
	e.Done(at(0), Outcome{Paused: time.Hour})
	if !e.notUntil.IsZero() {
		t.Error("a budget was charged")
	}
}
