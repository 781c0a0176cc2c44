package watch

import (
	"testing"
	"time"
)

// clock is a fake one, with a wall clock that can be set apart from it.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

var one = ID{PID: 10, Start: 100}

// step is one tick with one worker.
type step struct {
	at    float64 // seconds
	busy  float64 // seconds used since the step before
	req   Request
	alive float64
	gone  bool
	want  Kind // of the trigger that begins
}

var policy = Policy{CPU: 0.9, During: seconds(3), Age: seconds(60), Grain: 10 * time.Millisecond}

func TestTriggers(t *testing.T) {
	script := Request{State: NotWeb}
	idle := Request{State: NoRequest}
	since := func(s float64) Request {
		return Request{State: InProgress, Start: at(s), Same: at(s).String()}
	}
	unstarted := func(same string) Request { return Request{State: InProgress, Same: same} }
	for name, c := range map[string]struct {
		policy Policy
		steps  []step
	}{
		"a loop triggers when the period is over, and once": {policy, []step{
			{at: 0}, {at: 1, busy: 1, req: script}, {at: 2, busy: 0.99, req: script}, {at: 3, busy: 1, req: script, want: CPU}, {at: 4, busy: 1, req: script},
		}},
		"a pause begins the period anew": {policy, []step{
			{at: 0}, {at: 1, busy: 1}, {at: 2, busy: 0.5}, {at: 3, busy: 1}, {at: 4, busy: 1}, {at: 5, busy: 1, req: script, want: CPU},
		}},
		"a clock tick less is no pause": {policy, []step{
			{at: 0}, {at: 1, busy: 0.9}, {at: 2, busy: 0.89}, {at: 3, busy: 0.9, req: script, want: CPU},
		}},
		"just below the share": {policy, []step{
			{at: 0}, {at: 1, busy: 0.88}, {at: 2, busy: 0.88}, {at: 3, busy: 0.88}, {at: 4, busy: 0.88, req: script},
		}},
		"ticks that come late":                       {policy, []step{{at: 0}, {at: 7, busy: 6.9, req: script, want: CPU}}},
		"a tick that comes late, with a pause in it": {policy, []step{{at: 0}, {at: 7, busy: 6, req: script}}},
		"what a worker used before it was first seen does not count": {policy, []step{
			{at: 0, busy: 1000}, {at: 1, req: script}, {at: 2, req: script}, {at: 4, req: script},
		}},
		"the request is as old as the period": {policy, []step{
			{at: 0}, {at: 1, busy: 1}, {at: 2, busy: 1}, {at: 3, busy: 1, req: since(-1), want: CPU},
		}},
		"a worker that serves request after request does not hang": {policy, []step{
			{at: 0}, {at: 1, busy: 1}, {at: 2, busy: 1}, {at: 3, busy: 1, req: since(2.9)}, {at: 4, busy: 1, req: since(3.9)}, {at: 5, busy: 1, req: since(4.9)},
			{at: 6, busy: 1, req: since(5.9)}, {at: 7, busy: 1, req: since(6.9)}, {at: 8, busy: 1, req: since(7.9)}, {at: 9, busy: 1, req: since(8.9)},
		}},
		"and when its last request stays, that one does": {policy, []step{
			{at: 0}, {at: 1, busy: 1}, {at: 2, busy: 1}, {at: 3, busy: 1, req: since(2.5)}, {at: 4, busy: 1, req: since(2.5)}, {at: 5, busy: 1, req: since(2.5)},
			{at: 6, busy: 1, req: since(2.5), want: CPU},
		}},
		"met between two requests": {policy, []step{
			{at: 0}, {at: 1, busy: 1}, {at: 2, busy: 1}, {at: 3, busy: 1, req: idle}, {at: 4, busy: 1}, {at: 5, busy: 1}, {at: 6, busy: 1, req: since(5.9)},
		}},
		"busy without any request": {policy, []step{
			{at: 0}, {at: 1, busy: 1}, {at: 2, busy: 1}, {at: 3, busy: 1, req: idle}, {at: 4, busy: 1}, {at: 5, busy: 1}, {at: 6, busy: 1, req: idle, want: CPU},
		}},
		"a request that can't be read does not excuse": {policy, []step{
			{at: 0}, {at: 1, busy: 1}, {at: 2, busy: 1}, {at: 3, busy: 1, want: CPU},
		}},
		"--cpu 0": {Policy{Age: seconds(60)}, []step{{at: 0}, {at: 10, busy: 10, req: since(0)}, {at: 20, busy: 10, req: since(0)}}},

		"an old request": {policy, []step{
			{at: 0, req: idle, alive: 500}, {at: 30, req: since(5), alive: 530}, {at: 60, req: since(5), alive: 560}, {at: 65, req: since(5), alive: 565, want: Age}, {at: 66, req: since(5), alive: 566},
		}},
		"of a worker that was there before the watch": {policy, []step{{at: 0, req: since(-100), alive: 500, want: Age}}},
		"a script of the command line has no age":     {policy, []step{{at: 0, req: script, alive: 500}, {at: 100, req: script, alive: 600}}},
		"--age 0": {Policy{CPU: 0.9, During: 3}, []step{{at: 0, req: since(-100), alive: 500}}},
		"a worker younger than the age is not asked": {policy, []step{{at: 0, req: since(-100), alive: 59}}},
		"the wall clock was set forward": {policy, []step{
			{at: 0, req: idle, alive: 9000}, {at: 15, req: since(-3590), alive: 9015}, {at: 30, req: since(-3590), alive: 9030},
		}},
		"no request is older than its worker": {policy, []step{{at: 0, req: since(-3600), alive: 61, want: Age}, {at: 1, req: idle, alive: 62}}},
		"the wall clock was set back": {policy, []step{
			{at: 0, req: since(3600), alive: 500}, {at: 15, req: since(3600), alive: 515}, {at: 30, req: since(3600), alive: 530}, {at: 45, req: since(3600), alive: 545},
			{at: 60, req: since(3600), alive: 560, want: Age},
		}},
		"without a start, what was seen counts": {policy, []step{
			{at: 0, req: unstarted("a"), alive: 500}, {at: 30, req: unstarted("a"), alive: 530}, {at: 60, req: unstarted("a"), alive: 560, want: Age},
		}},
		"without a start, and it has run": {policy, []step{
			{at: 0, req: unstarted("a"), alive: 500}, {at: 30, req: unstarted("b"), alive: 530}, {at: 60, req: unstarted("b"), alive: 560}, {at: 91, req: unstarted("b"), alive: 590, want: Age},
		}},
		"a read that failed changes nothing": {policy, []step{
			{at: 0, req: unstarted("a"), alive: 500}, {at: 30, alive: 530}, {at: 60, req: unstarted("a"), alive: 560, want: Age},
		}},
		"another process with the same pid": {policy, []step{
			{at: 0}, {at: 1, busy: 1}, {at: 2, gone: true}, {at: 3, busy: 3}, {at: 4, busy: 1, req: script}, {at: 5, busy: 1, req: script},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := New(c.policy)
			var used time.Duration
			for _, s := range c.steps {
				used += seconds(s.busy)
				samples := []Sample{{ID: one, Busy: used, Alive: seconds(s.alive)}}
				if s.gone {
					samples = nil
				}
				got := e.Tick(at(s.at), samples, func(id ID) Request {
					if id != one {
						t.Errorf("asked for %v", id)
					}
					return s.req
				})
				var kind Kind
				if len(got) > 0 {
					kind = got[0].Kind
				}
				if kind != s.want {
					t.Fatalf("at %vs: trigger %q, want %q", s.at, kind, s.want)
				}
			}
		})
	}
}

func TestABusyWorkerThatWaitsItsTurnIsAskedAgain(t *testing.T) {
	e := New(policy)
	busy := func(s float64, q Request) {
		e.Tick(at(s), []Sample{{ID: one, Busy: seconds(s)}}, func(ID) Request { return q })
	}
	old := Request{State: InProgress, Start: at(-1), Same: "old"}
	for _, s := range []float64{0, 1, 2, 3} {
		busy(s, old)
	}
	if e.workers[one].due == nil {
		t.Fatal("it does not wait")
	}
	busy(4, Request{State: InProgress, Start: at(3.5), Same: "new"})
	if _, ok := e.Next(at(4)); ok || e.Stats().Recovered != 1 {
		t.Errorf("it was to be observed for a request that is over: %+v", e.Stats())
	}
}

func TestIdleWorkersAreSeldomAsked(t *testing.T) {
	e := New(policy)
	looks := 0
	for i := range 600 {
		e.Tick(at(float64(i)), []Sample{{ID: one, Alive: seconds(1000)}}, func(ID) Request { looks++; return Request{State: NoRequest} })
	}
	if most := 600*looksPerAge/60 + 1; looks > most {
		t.Errorf("%d looks at an idle worker in 600 ticks, want at most %d", looks, most)
	}
}

func TestTriggerSaysWhatWasMeasured(t *testing.T) {
	e := New(policy)
	look := func(ID) Request { return Request{State: NotWeb} }
	e.Tick(at(0), []Sample{{ID: one, Busy: seconds(5)}}, look)
	e.Tick(at(2), []Sample{{ID: one, Busy: seconds(6.9)}}, look)
	got := e.Tick(at(4), []Sample{{ID: one, Busy: seconds(8.8)}}, look)
	if len(got) != 1 || got[0].Period != seconds(4) || got[0].Share < 0.949 || got[0].Share > 0.951 || got[0].ID != one || !got[0].At.Equal(at(4)) {
		t.Errorf("got %+v, want 95 %% over 4s", got)
	}
}
