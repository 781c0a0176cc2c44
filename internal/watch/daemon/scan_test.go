package daemon

import (
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/watch"
)

func TestWaitingForAProcessorCountsWhileItLasts(t *testing.T) {
	const s = time.Second
	type tick struct {
		used, waited time.Duration
		ready        bool
		want         time.Duration // added to busy
	}
	for name, ticks := range map[string][]tick{
		"alone on its processor":          {{s, 0, true, s}, {s, 0, true, s}},
		"half of it, waits are counted":   {{s / 2, s / 2, true, s}, {s / 2, s / 2, true, s}},
		"a wait of three seconds":         {{0, 0, true, s}, {0, 0, true, s}, {s / 10, 2*s + 9*s/10, true, s}},
		"it sleeps":                       {{0, 0, false, 0}, {s / 100, 0, false, s / 100}},
		"met ready by chance, then not":   {{s / 10, 0, true, s}, {s / 10, 0, false, s/5 - s}},
		"a wait from before the first":    {{s / 2, 3 * s, false, s}},
		"two threads, more than one each": {{2 * s, 0, false, 2 * s}},
	} {
		t.Run(name, func(t *testing.T) {
			k := &seen{}
			for i, c := range ticks {
				before := k.busy
				k.spend(c.used, c.waited, s, c.ready)
				if got := k.busy - before; got != c.want {
					t.Errorf("tick %d adds %v, want %v", i, got, c.want)
				}
			}
		})
	}
}

func TestNewWorkersAreLookedForInTime(t *testing.T) {
	for _, c := range []struct {
		p    watch.Policy
		want time.Duration
	}{
		{watch.Policy{CPU: 0.9, During: 30 * time.Second, Age: time.Minute}, findEvery},
		{watch.Policy{CPU: 0.9, During: 2 * time.Second, Age: time.Minute}, 500 * time.Millisecond},
		{watch.Policy{During: 2 * time.Second, Age: 8 * time.Second}, 2 * time.Second},
	} {
		if got := findingEvery(c.p); got != c.want {
			t.Errorf("%+v: %v, want %v", c.p, got, c.want)
		}
	}
}

func TestARequestWithoutAStartIsTheSameWhileItDoesNothing(t *testing.T) {
	const us = time.Microsecond
	k := &seen{}
	first := k.unmarked(1, 900*us)
	if got := k.unmarked(1, 912*us); got != first {
		t.Errorf("woken for nothing, it is %q, not %q", got, first)
	}
	if got := k.unmarked(1, 950*us); got != first {
		t.Errorf("woken again, it is %q, not %q", got, first)
	}
	second := k.unmarked(1, 1150*us)
	if second == first {
		t.Error("it has run for as long as a request takes, and is the same")
	}
	third := k.unmarked(2, 1150*us)
	if third == second || third == first {
		t.Error("its parts are elsewhere, and it is the same")
	}
}
