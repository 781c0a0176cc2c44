package triage

import (
	"errors"
	"io"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// The bounds of what a Builder keeps. What is beyond them is counted.
const (
	// MaxStacks and MaxStackBytes bound the distinct stacks.
	MaxStacks     = 50_000
	MaxStackBytes = 48 << 20
	// MaxWorkers bounds the processes.
	MaxWorkers = 20_000
	// MaxTicks bounds the timeline: rounds of all hosts.
	MaxTicks = 20_000
	// maxEvents is how many events of one worker rules see, the latest; maxAllEvents
	// how many of all workers.
	maxEvents    = 2_000
	maxAllEvents = 400_000
)

// Builder collects captures into a Model. It is not safe for concurrent use.
type Builder struct {
	// Name, when not nil, may name the frames of each stack that is read anew; of
	// tells about the binary of a place.
	Name func(s *capture.PlacedStack, of func(i int) (path, buildID string))

	hosts    []Host
	byHost   map[Host]int
	binaries []Binary
	byBinary map[Binary]int
	stacks   table
	workers  []*worker
	byID     map[workerID]int
	ticks    []*tick
	byTick   map[tickID]*tick
	captures []*captureSeen
	failures []Failure
	sources  []Source

	from, to time.Time
	looks    int
	events   int // of all workers, as counted
	kept     int // … and kept for rules
	lost     struct{ stacks, workers, ticks, failures, events, repeated int }
}

type workerID struct {
	host, pid int
	start     uint64
	source    int // of captures that know no start time, else 0
}

// worker is what a Builder knows of one process.
type worker struct {
	Worker
	counts map[seenKey]int
	events []event // a ring once it is full
	next   int
	lastAt time.Duration
	first  time.Duration
	seen   bool
	last   int // stack of the last look's main thread; -1 for none
	breaks []capture.Breakpoint
	engine string
	looks  []lookAt // what it did in each round, bounded by the ticks
}

type seenKey struct {
	stack int
	kind  capture.EventKind
}

type event struct {
	capture.Event
}

type lookAt struct {
	moment
	stack int
}

// captureSeen is a capture that was added: a host's rounds from some time on.
type captureSeen struct {
	host    int
	started time.Time
	rounds  int
	live    bool // it is added to as it happens
}

type tickID struct {
	capture *captureSeen
	round   int
}

// tick is one round on one host.
type tick struct {
	host, round int
	at          time.Time
	workers     int
}

// NewBuilder makes an empty Builder.
func NewBuilder() *Builder {
	return &Builder{
		byHost: make(map[Host]int), byBinary: make(map[Binary]int), byID: make(map[workerID]int),
		byTick: make(map[tickID]*tick), stacks: newTable(),
	}
}

// Records are those of a file, as a capture.Stream reads them.
type Records interface {
	Next() (capture.Record, error)
}

// Read adds all captures of a file. What was read before an error counts; one that
// is capture.ErrTruncated is noted and not returned. Behind a *DamagedError there is
// something to report.
func (b *Builder) Read(name string, r Records) error {
	b.sources = append(b.sources, Source{Name: name})
	src := &b.sources[len(b.sources)-1]
	f := file{b: b}
	for {
		rec, err := r.Next()
		switch {
		case errors.Is(err, io.EOF) && f.n == 0 && !src.Truncated:
			return capture.Named(name, capture.ErrEmpty)
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, capture.ErrTruncated):
			src.Truncated = true
			continue
		case err != nil && f.n == 0:
			return capture.Named(name, err)
		case err != nil:
			src.Damage = err.Error()
			return &DamagedError{capture.Named(name, err)}
		}
		f.add(&rec)
	}
}

// DamagedError is a fault inside a file: what precedes it counts.
type DamagedError struct{ Err error }

func (e *DamagedError) Error() string {
	return e.Err.Error() + "; what precedes it is reported"
}

func (e *DamagedError) Unwrap() error { return e.Err }

// file maps a file's numbers to the Builder's.
type file struct {
	b        *Builder
	n        int // headers read
	capture  *captureSeen
	again    bool // this capture was added before
	host     int
	binaries []int
	procs    []int // -1: over the limit
	stacks   []int32
	// pending is the stack that each process's present look shows most PHP of.
	pending map[int]int
}

func (f *file) add(rec *capture.Record) {
	if f.again && rec.Header == nil {
		return
	}
	switch {
	case rec.Header != nil:
		*f = file{b: f.b, n: f.n + 1, pending: make(map[int]int)}
		f.host = f.b.host(rec.Header.Host)
		f.capture, f.again = f.b.capture(f.host, rec.Header.Started, false)
	case rec.Binary != nil:
		f.binaries = append(f.binaries, f.b.binary(rec.Binary.Path, rec.Binary.BuildID))
	case rec.Process != nil:
		p := rec.Process
		f.procs = append(f.procs, f.b.worker(f.host, p.PID, p.Start, p.Pool, p.Target))
	case rec.Stack != nil:
		for i := range rec.Stack.Places {
			if p := &rec.Stack.Places[i]; p.Binary != capture.NoBinary {
				p.Binary = f.binaries[p.Binary]
			}
		}
		if f.b.Name != nil {
			f.b.Name(rec.Stack, func(i int) (string, string) { return f.b.binaries[i].Path, f.b.binaries[i].BuildID })
		}
		f.stacks = append(f.stacks, int32(f.b.stack(&rec.Stack.Stack, rec.Stack.Places)))
	case rec.Event != nil:
		e := rec.Event
		if w := f.procs[e.Process]; w >= 0 {
			ev := e.Event
			ev.Stack = int(f.stacks[e.Event.Stack])
			f.b.event(f.b.workers[w], ev)
			f.show(e.Process, ev.Stack)
		}
	case rec.Look != nil:
		l := rec.Look
		main, ok := f.pending[l.Process]
		if !ok {
			main = -1
		}
		delete(f.pending, l.Process)
		if w := f.procs[l.Process]; w >= 0 {
			f.b.look(f.b.workers[w], l, f.capture, main)
		}
	case rec.Failure != nil:
		f.b.fail(f.host, rec.Failure.PID, rec.Failure.Round, rec.Failure.Error)
	case rec.Gone != nil:
		if w := f.procs[rec.Gone.Process]; w >= 0 {
			f.b.workers[w].Ended = true
		}
	}
}

// show keeps the stack that stands for a look: one with PHP code rather than one
// of a helper thread.
func (f *file) show(process, st int) {
	old, ok := f.pending[process]
	if !ok || st >= 0 && (old < 0 || !f.b.stacks.all[old].php && f.b.stacks.all[st].php) {
		f.pending[process] = st
	}
}

// Capture adds one look at a process, as it happens.
func (b *Builder) Capture(h capture.Header, pid int, start uint64, pool string, round int, at time.Duration, c *capture.Capture) {
	f := file{b: b, pending: make(map[int]int)}
	host := b.host(h.Host)
	i := b.worker(host, pid, start, pool, c.Target)
	if i < 0 {
		return
	}
	w := b.workers[i]
	ids := make([]int, len(c.Stacks))
	for i := range c.Stacks {
		ids[i] = b.stack(&c.Stacks[i], b.places(&c.Stacks[i], c.Modules))
	}
	for _, e := range c.Events {
		e.Stack = ids[e.Stack]
		b.event(w, e)
		f.show(0, e.Stack)
	}
	main, ok := f.pending[0]
	if !ok {
		main = -1
	}
	of, _ := b.capture(host, h.Started, true)
	b.look(w, &capture.Look{Round: round, At: at, Observation: c.Observation, Request: c.Target.Request,
		Requests: c.Target.Requests, Facts: c.Facts}, of, main)
}

func (b *Builder) places(s *stack.Stack, mods []capture.Module) []capture.Place {
	out := make([]capture.Place, len(s.Frames))
	for i := range out {
		out[i].Binary = capture.NoBinary
		f := &s.Frames[i]
		if f.Kind != stack.Native {
			continue
		}
		for j := range mods {
			if m := &mods[j]; uint64(f.PC) >= m.Start && uint64(f.PC) < m.End {
				out[i] = capture.Place{Binary: b.binary(m.Path, m.BuildID), Addr: uint64(f.PC) - m.Bias, Exact: f.How == "entry"}
				break
			}
		}
	}
	return out
}

// Failed adds a process that could not be looked at.
func (b *Builder) Failed(h capture.Header, pid, round int, err error) {
	b.fail(b.host(h.Host), pid, round, err.Error())
}

// Gone notes that a process had ended.
func (b *Builder) Gone(h capture.Header, pid int, start uint64) {
	if i, ok := b.byID[workerID{host: b.host(h.Host), pid: pid, start: start}]; ok {
		b.workers[i].Ended = true
	}
}

func (b *Builder) host(h capture.Host) int {
	k := Host{Name: h.Name, BootID: h.BootID, Kernel: h.Kernel, Arch: h.Arch, CPUs: h.CPUs}
	i, ok := b.byHost[k]
	if !ok {
		i = len(b.hosts)
		b.hosts, b.byHost[k] = append(b.hosts, k), i
	}
	return i
}

func (b *Builder) binary(path, id string) int {
	k := Binary{Path: path, BuildID: id}
	i, ok := b.byBinary[k]
	if !ok {
		i = len(b.binaries)
		b.binaries, b.byBinary[k] = append(b.binaries, k), i
	}
	return i
}

func (b *Builder) worker(host, pid int, start uint64, pool string, t capture.Target) int {
	k := workerID{host: host, pid: pid, start: start}
	if start == 0 { // two captures of one process of v1 may be of two processes
		k.source = len(b.sources)
	}
	if i, ok := b.byID[k]; ok {
		return i
	}
	if len(b.workers) >= MaxWorkers {
		b.lost.workers++
		return -1
	}
	i := len(b.workers)
	b.byID[k] = i
	t.Request, t.Requests = nil, nil
	b.workers = append(b.workers, &worker{counts: make(map[seenKey]int), last: -1,
		Worker: Worker{Host: host, PID: pid, Start: start, Pool: pool, Target: t, Group: -1, Stack: -1}})
	return i
}

func (b *Builder) event(w *worker, e capture.Event) {
	b.events++
	if e.Kind == capture.Stop {
		w.Stops++
	} else {
		w.Samples++
	}
	if e.Stack < 0 {
		return
	}
	b.stacks.all[e.Stack].count++
	w.counts[seenKey{e.Stack, e.Kind}]++
	switch {
	case len(w.events) < maxEvents && b.kept < maxAllEvents:
		w.events = append(w.events, event{e})
		b.kept++
	case len(w.events) > 0: // the oldest makes room
		w.events[w.next] = event{e}
		w.next = (w.next + 1) % len(w.events)
		b.lost.events++
	default:
		b.lost.events++
	}
}
