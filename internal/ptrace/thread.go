package ptrace

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// onThread runs f on an OS thread of its own, which ends with f. The kernel
// then detaches whatever f left traced. A panic in f becomes an error.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go runLocked(f, done)
	return <-done
}

func runLocked(f func() error, done chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Gettid() == os.Getpid() {
		// The main thread can't end. While it is locked here, the next
		// goroutine has to run on another one.
		again := make(chan error, 1)
		go runLocked(f, again)
		err := <-again
		runtime.UnlockOSThread()
		done <- err
		return
	}
	defer func() {
		if p := recover(); p != nil {
			done <- fmt.Errorf("%w: %v\n%s", ErrPanic, p, debug.Stack())
		}
	}()
	done <- f()
}
