package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// ending are the signals that end a command early, with what it has. What whoever
// started it has ignored stays ignored: nohup, or a script's background.
func ending() []os.Signal {
	out := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			out = append(out, s)
		}
	}
	return out
}

// unsuspended has Ctrl-Z end a command that holds workers, as Ctrl-C does: a suspended
// one would leave a worker standing at its next breakpoint, for as long as nobody
// notices. The function it returns is to be called at the end, and says so.
func unsuspended(ctx context.Context, s streams) (context.Context, func()) {
	if signal.Ignored(syscall.SIGTSTP) { // by a shell without job control
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTSTP)
	var ended atomic.Bool
	go func() {
		select {
		case <-asked:
			ended.Store(true)
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(asked)
		cancel()
		if ended.Load() {
			fmt.Fprintln(s.err, "phpwhy: ended by Ctrl-Z: a suspended phpwhy would hold the worker")
		}
	}
}
