// Package observe runs one observation of one process: it stops the worker,
// copies, lets it run again, and turns what was copied into a capture.
//
// Contract: whatever ends the observation (time, stops, cancellation, the
// target's end), the capture holds what was seen until then. While a thread is
// stopped nothing but copying happens; unwinding, symbolizing and reading PHP
// frames happen afterwards, on another goroutine.
//
// Non-goal: it judges nothing; package rules does.
package observe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize"
)

// Options say how to observe.
type Options struct {
	For         time.Duration
	Stops       int      // breakpoint stops after which to end; 0: no limit
	Break       []string // functions of the mapped libc
	Engine      string   // auto, hwbp, int3, syscall or uprobe
	SampleEvery time.Duration
	MaxPause    float64 // share of the time that the worker may be stopped, 0 to 1; 0: no limit
	// Progress, when not nil, is told now and then how many stacks there are.
	// It is called from one goroutine.
	Progress func(stops, samples int)
}

// Defaults are what `phpwhy attach PID` uses.
func Defaults() Options {
	return Options{
		For: 3 * time.Second, Stops: 200, Break: []string{"mmap", "mremap"},
		Engine: ptrace.EngineAuto, SampleEvery: 100 * time.Millisecond, MaxPause: 0.2,
	}
}

// EngineUprobe has the kernel copy at each breakpoint, and stops nothing.
const EngineUprobe = "uprobe"

// ErrNoBreakpoint says that none of the functions to stop at exists in the
// target.
var ErrNoBreakpoint = errors.New("no function to stop at")

// Observer observes processes. The modules it has parsed are shared between
// them; it is safe for concurrent use.
type Observer struct {
	Look Look // what is read of PHP variables; set it before observing
	// Started, when not nil, is called by Command once the command's process
	// exists and has inherited what it inherits.
	Started func()

	cache   *symbolize.Cache
	structs structs
	locks   proc.Locks
	peers   proc.Peers
	spare   spares
}

// New makes an Observer.
func New() *Observer { return &Observer{cache: symbolize.NewCache()} }

// KeepIn has what is found out about program files kept between runs. Call it
// before observing, and Keep in the end.
func (o *Observer) KeepIn(s symbolize.Store) { o.cache.KeepIn(s) }

// Keep saves what was found out.
func (o *Observer) Keep() error { return o.cache.Keep() }

// Attach observes a running process.
func (o *Observer) Attach(ctx context.Context, pid int, opt Options) (*capture.Capture, error) {
	live, err := target.Open(pid)
	if err != nil {
		return nil, err
	}
	defer live.Close()
	s, err := o.open(live)
	if err != nil {
		return nil, err
	}
	popt, err := s.prepare(opt)
	if err != nil {
		return nil, err
	}
	s.facts.watch(live)
	if opt.Engine == EngineUprobe {
		res, err := s.probe(ctx, popt)
		return s.finish(res, err)
	}
	res, err := ptrace.Observe(ctx, pid, popt, s.pipe)
	return s.finish(res, err)
}

// Command starts argv and observes it from its first instruction on: the
// breakpoints are armed when the dynamic linker has mapped libc, before any
// of the program's own code runs. A program that replaces itself with PHP, as env in a
// script's first line does, is followed to it. A command that outlives the observation is
// ended: it was started for this, and one that hangs would never end by itself.
func (o *Observer) Command(ctx context.Context, argv []string, std [3]*os.File, opt Options) (*capture.Capture, error) {
	var s *session
	var live *target.Live
	forward := ptrace.HandlerFunc(func(st *ptrace.Stop) ptrace.Verdict { return s.pipe.OnStop(st) })
	ready := func(pid int) (ptrace.Options, error) {
		var err error
		if live != nil {
			_ = live.Close() // of a program that has replaced itself
		}
		if live, err = target.Open(pid); err != nil {
			return ptrace.Options{}, err
		}
		if s, err = o.openStarting(live); err != nil {
			return ptrace.Options{}, err
		}
		s.facts.watch(live)
		return s.prepare(opt)
	}
	c := ptrace.Command{Args: argv, Stdin: std[0], Stdout: std[1], Stderr: std[2], Started: o.Started,
		Follow: func(err error) bool { return errors.Is(err, zend.ErrNotPHP) }}
	res, child, err := ptrace.ObserveCommand(ctx, c, ready, forward)
	if live != nil {
		defer live.Close()
	}
	if s == nil {
		if child != nil {
			err = errors.Join(err, end(child))
		}
		if err == nil {
			err = &proc.Error{PID: res.PID, What: "observe process", Err: proc.ErrNoProcess, Advice: "the command ended before it could be observed"}
		}
		return nil, err
	}
	cap, err := s.finish(res, err)
	if child != nil {
		s.note("the command was ended after the observation")
		err = errors.Join(err, end(child))
	}
	return cap, err
}

// patience is how long a command may take to follow SIGTERM.
const patience = time.Second

// end terminates a child process and waits for it.
func end(child *os.Process) error {
	if err := child.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	force := time.AfterFunc(patience, func() { _ = child.Kill() })
	defer force.Stop()
	_, err := child.Wait()
	return err
}

// Dump takes one joined stack of every thread, now.
func (o *Observer) Dump(ctx context.Context, pid int) (*capture.Capture, error) {
	live, err := target.Open(pid)
	if err != nil {
		return nil, err
	}
	defer live.Close()
	s, err := o.open(live)
	if err != nil {
		return nil, err
	}
	return s.dump(ctx)
}

// noBreakpoint explains which functions the target lacks.
func noBreakpoint(names []string, why error) error {
	if why != nil {
		return fmt.Errorf("%w: %w", ErrNoBreakpoint, why)
	}
	return fmt.Errorf("%w: the C library that it has mapped exports no function %s", ErrNoBreakpoint, strings.Join(names, ", "))
}
