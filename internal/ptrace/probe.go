package ptrace

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"time"

	"golang.org/x/sys/unix"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// ProbeArg is the hidden first argument with which this program runs itself as
// a Subject.
const ProbeArg = "__ptrace-subject"

// Subject is a process of our own on which the engines are tried: it calls one
// function every millisecond until it is closed, or this process ends.
type Subject struct {
	PID int
	At  remote.Addr // of the function

	cmd  *os.Process
	pipe *os.File
}

const (
	subjectTimeout = 5 * time.Second
	subjectPause   = time.Millisecond
	// tries is how many stops prove an engine, and tryFor how long they may
	// take on a machine that is busy with other things.
	tries  = 3
	tryFor = 2 * time.Second
)

// StartSubject starts one. Close it.
func StartSubject() (*Subject, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer inR.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inW.Close())
	}
	defer outR.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{"phpwhy", ProbeArg}, &os.ProcAttr{
		// Go opens /dev/null for what is closed, and a root directory may have none.
		Files: []*os.File{inR, outW, outW}, Env: []string{"GOMAXPROCS=1"},
	})
	err = errors.Join(err, outW.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a process to try the engines on: %w", err), inW.Close())
	}
	s := &Subject{PID: p.Pid, cmd: p, pipe: inW}
	var hello [8]byte
	err = outR.SetReadDeadline(time.Now().Add(subjectTimeout))
	if err == nil {
		_, err = io.ReadFull(outR, hello[:])
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the process to try the engines on did not start: %w", err), s.Close())
	}
	s.At = remote.Addr(binary.LittleEndian.Uint64(hello[:]))
	return s, nil
}

// Close ends the process.
func (s *Subject) Close() error {
	err := errors.Join(s.pipe.Close(), ignoreDone(s.cmd.Kill()))
	_, werr := s.cmd.Wait()
	return errors.Join(err, werr)
}

// subjectMain is the subject. Its action for SIGTRAP is the default one, as
// PHP's is; Go's own would keep int3 away.
func subjectMain(in io.Reader, out io.Writer) int {
	if err := defaultAction(unix.SIGTRAP); err != nil {
		return 1
	}
	hello := binary.LittleEndian.AppendUint64(nil, uint64(reflect.ValueOf(called).Pointer()))
	if _, err := out.Write(hello); err != nil {
		return 1
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(ended)
	}()
	for n := 0; ; {
		select {
		case <-ended:
			return 0
		case <-time.After(subjectPause):
			n = called(n)
		}
	}
}

// called is where the subject is stopped. What it calls gives it the first
// instruction that most functions have.
//
//go:noinline
func called(n int) int { return counted(n) + 1 }

//go:noinline
func counted(n int) int { return n + 1 }

// Try makes the subject stop by an engine and returns how often it did.
func (s *Subject) Try(ctx context.Context, engine string) (int, error) {
	if engine == EngineSyscall {
		return s.trySyscall(ctx)
	}
	o := Options{Engine: engine, Breakpoints: []Breakpoint{{Addr: s.At, Name: "a function of our own"}}, MaxStops: tries, For: tryFor}
	res, err := Observe(ctx, s.PID, o, HandlerFunc(func(*Stop) Verdict { return Continue }))
	n := 0
	for _, h := range res.Hits {
		n += int(h)
	}
	return n, notStopped(n, err)
}

func notStopped(n int, err error) error {
	if n == 0 && err == nil {
		return fmt.Errorf("%w: no stop in %v", ErrNotStopping, tryFor)
	}
	return err
}

// trySyscall stops the threads at their system calls. The tracing thread's end
// lets them go.
func (s *Subject) trySyscall(ctx context.Context) (int, error) {
	n := 0
	err := onThread(func() error {
		ses := newSession(s.PID)
		if err := ses.attach(); err != nil {
			return err
		}
		defer ses.mem.Close()
		if err := ses.stopAll(); err != nil {
			return err
		}
		for tid := range ses.threads {
			if err := toSyscall(tid, 0); err != nil && !gone(err) {
				return err
			}
		}
		w, err := newWaiter()
		if err != nil {
			return err
		}
		w.start(ctx, tryFor, 0)
		defer w.close()
		var ev event
		for n < tries {
			ok, err := w.next(&ev)
			if err != nil || !ok {
				return err
			}
			consume(ev.tid)
			sig := 0
			switch {
			case ev.ended():
				continue
			case ev.syscallStop():
				n++
			case ev.trace() == 0:
				sig = ev.sig()
			}
			if err := toSyscall(ev.tid, sig); err != nil && !gone(err) {
				return err
			}
		}
		return nil
	})
	s.untraced()
	return n, notStopped(n, err)
}

// untraced waits until the kernel has ended a tracing thread.
func (s *Subject) untraced() {
	for until := time.Now().Add(detachTimeout); statusField(s.PID, "TracerPid") != "0" && time.Now().Before(until); {
		time.Sleep(detachPoll)
	}
}

// TryHardware asks the kernel for a hardware breakpoint in a thread of another
// process and gives it back without having armed it. The thread is not stopped.
func TryHardware(tid int, bp Breakpoint) error {
	e := &hwbp{bps: []Breakpoint{bp}, off: true}
	t := &tracee{tid: tid}
	defer e.dropThread(t)
	return e.addThread(t)
}
