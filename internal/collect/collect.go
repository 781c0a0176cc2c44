// Package collect looks at many PHP workers at once, round after round.
//
// Contract: a worker is stopped once per round, by the same short stop as dump's.
// As many as Options.Concurrency may stand still at a time: a busy worker on a busy
// host takes a while to notice that it is to stop, and these times overlap. A worker
// that can't be looked at fails alone. Behind the last round the PHP processes that
// workers wait for are looked at once, too, if they are not among them. Whatever ends a collection, what was seen
// until then has been handed over.
//
// Hazard: workers come, go and give their pids to others while this runs; one is
// known by pid and start time, and checked before each look.
//
// Non-goal: it neither judges nor groups; packages rules and triage do.
package collect

import (
	"context"
	"errors"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/workers"
)

// Options say what to collect.
type Options struct {
	Filter workers.Filter
	// Every is the time from one round's beginning to the next one's; For is
	// how long rounds are begun. With both zero there is one round.
	Every, For time.Duration
	// Break are functions to stop at: each worker is then observed for Slice in each
	// round, as attach does, rather than stopped once.
	Break  []string
	Slice  time.Duration
	Engine string
	// MaxPause is the share of the time that a worker may be stopped, and also all
	// those together that are observed at a time; with Break only.
	MaxPause float64
	// Concurrency is how many workers are looked at side by side. 0: one per
	// processor, four on a busy host; with Break breakSideBySide.
	Concurrency int
	Tool        string
	// Hold, when not nil, is asked before each round but the first and returns
	// when it may begin.
	Hold func(context.Context)
}

// Sink takes what was seen. Its methods are called by one goroutine at a time; an
// error ends the collection.
type Sink interface {
	Begin(capture.Header) error
	// Round begins; so many workers will be looked at.
	Round(n, workers int) error
	Look(w *workers.Worker, round int, at time.Duration, c *capture.Capture) error
	Fail(pid, round int, err error) error
	Gone(w *workers.Worker, round int) error
	// Done ends a round: what was handed over until now is to be kept.
	Done(n int) error
	End(rounds int, ended string) error
}

// Result is the collection in figures.
type Result struct {
	Rounds, Looks, Failures int
	// First is the first failure, for a collection without a single look.
	First error
}

// tracked is a worker that was found.
type tracked struct {
	w      workers.Worker
	obs    *observe.Worker // nil until it is opened
	failed bool            // it is no PHP that can be read; it is not asked again
}

type collector struct {
	opt    Options
	sink   Sink
	o      *observe.Observer
	finder *workers.Finder
	known  map[workers.ID]*tracked
	began  time.Time
	res    Result
	failed map[int]bool // pids without a process that were reported
	// awaited are the processes that the workers of the present round wait for.
	awaited map[int]bool
}

// Run collects until it is done, the context is cancelled, or the sink fails. A
// cancelled collection is no error.
func Run(ctx context.Context, o *observe.Observer, opt Options, sink Sink) (Result, error) {
	switch {
	case opt.Concurrency > 0:
	case len(opt.Break) > 0:
		opt.Concurrency = breakSideBySide
	default:
		opt.Concurrency = sideBySide(line("/proc/loadavg"))
	}
	opt.MaxPause /= float64(opt.Concurrency)
	// A tracer that comes back from the kernel needs one of Go's processors at once.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2*opt.Concurrency))
	c := &collector{opt: opt, sink: sink, o: o, finder: workers.NewFinder(), known: make(map[workers.ID]*tracked), failed: make(map[int]bool), began: time.Now()}
	defer c.close()
	defer o.Calm()()
	h := Header(opt.Tool)
	h.Started = c.began
	if err := sink.Begin(h); err != nil {
		return c.res, err
	}
	ended, err := c.rounds(ctx)
	if err != nil {
		return c.res, err
	}
	return c.res, sink.End(c.res.Rounds, ended)
}

func (c *collector) close() {
	for _, t := range c.known {
		if t.obs != nil {
			_ = t.obs.Close()
		}
	}
}

func (c *collector) rounds(ctx context.Context) (ended string, err error) {
	single := c.opt.Every <= 0 && c.opt.For <= 0
	// Rounds begin at times that were planned, however long the one before took; one
	// that took longer than Every is followed at once.
	from := c.began
	for n := 1; ; n++ {
		if err := c.round(ctx, n); err != nil {
			return "", err
		}
		if from = from.Add(c.opt.Every); time.Since(from) > 0 {
			from = time.Now()
		}
		switch {
		case ctx.Err() != nil:
			return "cancelled", nil
		case single || c.opt.For > 0 && from.Sub(c.began) > c.opt.For:
			return "done", c.holders(ctx, n)
		}
		select {
		case <-ctx.Done():
			return "cancelled", nil
		case <-time.After(time.Until(from)):
		}
		if c.opt.Hold != nil {
			if c.opt.Hold(ctx); ctx.Err() != nil {
				return "cancelled", nil
			}
			from = maxTime(from, time.Now())
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// found is one worker's part of a round.
type found struct {
	t   *tracked
	at  time.Duration
	cap *capture.Capture
	err error
}

// ForHolder is the fact that marks a look at a process that was not chosen: others wait
// for it.
const ForHolder = "look.for_holder"

// maxHolders bounds the processes that are looked at because others wait for them.
const maxHolders = 16

// holders looks once at the PHP processes that workers of the last round wait for and
// that are not among them.
func (c *collector) holders(ctx context.Context, n int) error {
	looked := 0
	for _, pid := range slices.Sorted(maps.Keys(c.awaited)) {
		chosen := func(id workers.ID) bool { return id.PID == pid }
		if slices.ContainsFunc(slices.Collect(maps.Keys(c.known)), chosen) || looked == maxHolders || ctx.Err() != nil {
			continue
		}
		list, err := c.finder.Find(ctx, workers.Filter{PIDs: []int{pid}})
		if err != nil || len(list) != 1 {
			continue // it has ended
		}
		t := &tracked{w: list[0]}
		var cap *capture.Capture
		if t.obs, err = c.o.Open(pid); err != nil {
			continue // it is no PHP, or must not be looked at
		}
		if t.obs.Start() == t.w.Start {
			cap, err = t.obs.Look(ctx)
		}
		if err == nil && cap != nil {
			err = cap.Normalize()
		}
		at := c.at(t)
		if cerr := t.obs.Close(); err != nil || cerr != nil || cap == nil {
			continue
		}
		cap.Facts[ForHolder] = true
		looked++
		c.res.Looks++
		if err := c.sink.Look(&t.w, n, at, cap); err != nil {
			return err
		}
	}
	if looked == 0 {
		return nil
	}
	return c.sink.Done(n)
}

// await notes whom a worker waits for.
func (c *collector) await(facts map[string]any) {
	for _, name := range []string{"lock.holder_pid", "lock.contended_pid", "fd.held_by", "fd.peer_pid", "child.pid"} {
		if pid, ok := facts[name].(int64); ok && pid > 0 {
			c.awaited[int(pid)] = true
		}
	}
}

func (c *collector) round(ctx context.Context, n int) error {
	c.awaited = make(map[int]bool)
	todo, err := c.find(ctx, n)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := c.sink.Round(n, len(todo)); err != nil {
		return err
	}
	jobs, results := make(chan *tracked), make(chan found, c.opt.Concurrency)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range min(c.opt.Concurrency, len(todo)) {
		wg.Go(func() {
			for t := range jobs {
				f := found{t: t}
				f.cap, f.at, f.err = c.look(ctx, t)
				if f.err == nil {
					f.err = f.cap.Normalize()
				}
				results <- f
			}
		})
	}
	wg.Go(func() {
		defer close(jobs)
		for _, t := range todo {
			select {
			case jobs <- t:
			case <-ctx.Done():
				return
			}
		}
	})
	go func() { wg.Wait(); close(results) }()
	var failed error
	for f := range results {
		if failed == nil {
			if failed = c.take(ctx, n, &f); failed != nil {
				cancel()
			}
		}
	}
	if failed != nil {
		return failed
	}
	c.res.Rounds = n
	return c.sink.Done(n)
}

// take hands one result over.
func (c *collector) take(ctx context.Context, n int, f *found) error {
	switch {
	case f.cap != nil && len(f.cap.Events) > 0 && f.err == nil, f.cap != nil && len(f.cap.Events) > 0 && ctx.Err() != nil:
		c.res.Looks++
		c.await(f.cap.Facts)
		return c.sink.Look(&f.t.w, n, f.at, f.cap)
	case ctx.Err() != nil:
		return nil
	case f.err == nil:
		return c.sink.Look(&f.t.w, n, f.at, f.cap)
	case c.res.First == nil:
		c.res.First = f.err
	}
	c.res.Failures++
	return c.sink.Fail(f.t.w.PID, n, f.err)
}

// find brings the list of workers up to date.
func (c *collector) find(ctx context.Context, n int) ([]*tracked, error) {
	list, err := c.finder.Find(ctx, c.opt.Filter)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	if err := c.missing(n, list, err); err != nil {
		return nil, err
	}
	alive := make(map[workers.ID]bool, len(list))
	var todo []*tracked
	for i := range list {
		w := &list[i]
		alive[w.ID] = true
		t := c.known[w.ID]
		if t == nil {
			t = &tracked{w: *w}
			c.known[w.ID] = t
		}
		if !t.failed {
			todo = append(todo, t)
		}
	}
	for id, t := range c.known {
		if alive[id] {
			continue
		}
		delete(c.known, id)
		if t.obs != nil {
			_ = t.obs.Close()
		}
		if err := c.sink.Gone(&t.w, n); err != nil {
			return nil, err
		}
	}
	return todo, nil
}

// missing notes the pids that were asked for and are not there, once each. In the
// first round it is an error that there is nobody at all.
func (c *collector) missing(n int, list []workers.Worker, err error) error {
	if err == nil {
		return nil
	}
	if n == 1 && len(list) == 0 {
		return err
	}
	var all interface{ Unwrap() []error }
	if !errors.As(err, &all) {
		return nil // none now; there were some, and others may come
	}
	for _, e := range all.Unwrap() {
		var pe *proc.Error
		if !errors.As(e, &pe) || c.failed[pe.PID] || c.was(pe.PID) {
			continue
		}
		c.failed[pe.PID] = true
		c.res.Failures++
		if c.res.First == nil {
			c.res.First = e
		}
		if err := c.sink.Fail(pe.PID, n, e); err != nil {
			return err
		}
	}
	return nil
}

// was reports whether a pid is that of a worker that was looked at.
func (c *collector) was(pid int) bool {
	for id := range c.known {
		if id.PID == pid {
			c.failed[pid] = true // Gone says it
			return true
		}
	}
	return false
}

// look looks at one worker.
func (c *collector) look(ctx context.Context, t *tracked) (*capture.Capture, time.Duration, error) {
	if t.obs == nil {
		obs, err := c.o.Open(t.w.PID)
		if err == nil && obs.Start() != t.w.Start {
			err = errors.Join(&proc.Error{PID: t.w.PID, What: "look at process", Err: proc.ErrNoProcess, Advice: "it ended, and another has its pid"}, obs.Close())
		}
		if err != nil {
			t.failed = true
			return nil, 0, err
		}
		t.obs = obs
	}
	if len(c.opt.Break) == 0 {
		cap, err := t.obs.Look(ctx)
		return cap, c.at(t), err
	}
	opt := observe.Defaults()
	opt.Break, opt.For, opt.Stops = c.opt.Break, c.opt.Slice, 0
	opt.MaxPause = c.opt.MaxPause
	if c.opt.Engine != "" {
		opt.Engine = c.opt.Engine
	}
	cap, err := t.obs.Observe(ctx, opt)
	return cap, c.at(t), err
}

// at is when the latest look at a worker began, since the collection did.
func (c *collector) at(t *tracked) time.Duration { return max(0, t.obs.Began().Sub(c.began)) }

// breakSideBySide is how many workers are observed at breakpoints at a time. Each
// takes some memory for stops that wait to be read.
const breakSideBySide = 4

// sideBySide is how many workers are looked at at a time. On a host with processors
// to spare more than one each only makes the stops longer; on a busy one the time
// goes by waiting for workers to notice that they are to stop.
func sideBySide(loadavg string) int {
	n := max(2, runtime.NumCPU())
	first, _, _ := strings.Cut(loadavg, " ")
	if load, err := strconv.ParseFloat(first, 64); err == nil && load > 2*float64(n) {
		return 4 * n
	}
	return n
}

// Header describes this host.
func Header(tool string) capture.Header {
	h := capture.Header{Tool: tool, Started: time.Now()}
	h.Host.Name, _ = os.Hostname()
	h.Host.Arch, h.Host.CPUs = runtime.GOARCH, runtime.NumCPU()
	h.Host.Kernel = line("/proc/sys/kernel/osrelease")
	h.Host.BootID = line("/proc/sys/kernel/random/boot_id")
	return h
}

func line(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
