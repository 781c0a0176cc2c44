package ptrace

import (
	"context"
	"testing"
	"time"
)

// What a killed tracer left is found and removed by the next one, whichever
// engine either of them uses, also when the guard was killed with it.
func TestTheNextTracerRemovesWhatAKilledOneLeft(t *testing.T) {
	for _, c := range []struct{ first, next string }{
		{EngineHWBP, EngineHWBP}, {EngineHWBP, EngineInt3}, {EngineInt3, EngineHWBP}, {EngineInt3, EngineInt3},
	} {
		t.Run(c.first+" then "+c.next, func(t *testing.T) {
			w := start(t, 2, "hot")
			cmd := tracer(t, c.first, w, "PTRACE_TEST_NOGUARD=1")
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			time.Sleep(20 * time.Millisecond)
			w.awaitLoops(100)
			if c.first == EngineInt3 && textDiffers(t, w.pid) == 0 {
				t.Fatal("nothing was left, so nothing is tested")
			}
			res, err := Observe(context.Background(), w.pid,
				Options{Engine: c.next, Breakpoints: at(t, w.pid, "mremap"), MaxStops: 50, For: 5 * time.Second}, HandlerFunc(nop))
			if err != nil || res.Hits[0] < 50 {
				t.Fatalf("%d hits, %v", res.Hits, err)
			}
			w.awaitLoops(100)
			w.mustBeClean()
		})
	}
}

func TestAForeignSIGTRAPHandlerIsNotTakenForOurs(t *testing.T) {
	w := start(t, 1, "own")
	_, err := Observe(context.Background(), w.pid,
		Options{Engine: EngineInt3, Breakpoints: at(t, w.pid, "mremap"), MaxStops: 5, For: time.Second}, HandlerFunc(nop))
	if err == nil {
		t.Error("int3 was set in a worker with a SIGTRAP handler of its own")
	}
}
