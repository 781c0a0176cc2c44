package observe

import (
	"runtime"
	"testing"
	"time"
)

// Two workers are observed side by side also where a large heap is in use.
func TestTidyingWaitsForNoWorkerThatStandsStill(t *testing.T) {
	restore := New().Calm()
	defer restore()
	live := make([]byte, tidyAt+tidyAt/2)
	live[0] = 1
	runtime.GC()
	first := quiet()
	defer first()
	// promptly runs what must not wait for the first.
	promptly := func(what string, do func()) {
		t.Helper()
		done := make(chan bool)
		go func() { do(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Errorf("%s waits until the first worker runs again", what)
		}
	}
	promptly("the second worker", func() { quiet()() })
	runtime.KeepAlive(live)
	// Garbage beyond what is in use is left for later while somebody stands still.
	litter(3 * tidyAt)
	if few, _ := untidy(); !few {
		t.Error("garbage is not noticed")
	}
	promptly("tidying", tidy)
}

var garbage []byte

// litter makes garbage of n bytes.
func litter(n int) {
	garbage = make([]byte, n)
	runtime.KeepAlive(garbage)
	garbage = nil
}
