// Package series keeps how evidence changed over time: the size of the block
// that grows, the depth of PHP's stack, memory and processor time.
//
// Contract: memory is bounded, however long and large a capture is. A series
// that has more points than are kept loses resolution, evenly and never its
// peaks or its end; Seen says how many points there were.
//
// Hazard: captures come from other hosts. Arguments that no kernel would take
// are ignored, and so is a clock that runs backwards.
//
// Non-goal: it judges nothing. Whether growth is a cause is package rules'
// business.
package series

import (
	"cmp"
	"slices"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// The bounds.
const (
	maxPoints = 240  // of one series
	maxSeries = 4096 // in all
	maxBlocks = 32   // followed at a time in one worker
	// maxPending bounds the events of one look that wait for its beginning.
	maxPending = 50_000
	minPoints  = 3 // fewer are no line
)

// Kind is what a series measures.
type Kind string

// The kinds of series.
const (
	Block  Kind = "block"  // bytes of the block that grew most often
	Depth  Kind = "depth"  // PHP frames on the stack
	Memory Kind = "memory" // bytes that PHP has from the system
	CPU    Kind = "cpu"    // per cent of one processor
)

// Worker tells processes apart.
type Worker struct {
	Host, Boot string
	PID        int
	Start      uint64 // clock ticks after the boot; 0 when unknown
	source     int    // of captures that know no start time
}

// Point is one measurement.
type Point struct {
	At    time.Duration // since 1970, or since the observation began where that is not known
	Value float64
}

// Series is how one thing changed in one worker.
type Series struct {
	Worker Worker
	Kind   Kind
	Points []Point // by time
	Seen   int     // measurements, of which Points are a selection
}

// Change is by how much the value differs between begin and end.
func (s *Series) Change() float64 { return s.Points[len(s.Points)-1].Value - s.Points[0].Value }

// points is a series in the making: when it is full, neighbours are merged.
type points struct {
	kept   []Point
	stride int // measurements that one point stands for
	in     int // measurements in the last point
	seen   int
}

func (p *points) add(at time.Duration, v float64) {
	if n := len(p.kept); n > 0 && at < p.kept[n-1].At {
		return
	}
	p.seen++
	if p.stride == 0 {
		p.stride = 1
	}
	if n := len(p.kept); n > 0 && p.in < p.stride {
		p.in++
		p.kept[n-1] = peak(p.kept[n-1], Point{at, v})
		return
	}
	if len(p.kept) == maxPoints {
		half := p.kept[:0]
		for i := 0; i+1 < maxPoints; i += 2 {
			half = append(half, peak(p.kept[i], p.kept[i+1]))
		}
		p.kept = half
		p.stride *= 2
	}
	p.kept = append(p.kept, Point{at, v})
	p.in = 1
}

// peak is the later of two points, with the higher value.
func peak(a, b Point) Point { return Point{b.At, max(a.Value, b.Value)} }

type key struct {
	worker Worker
	kind   Kind
}

// Builder gathers series from the records of captures, as they come from a
// capture.Stream. Its zero value is ready.
type Builder struct {
	series map[key]*points
	blocks map[Worker]*follower
	full   bool

	// Of the capture that is being read.
	sources int
	header  capture.Header
	workers []Worker
	depths  []int                   // of its stacks, in PHP frames
	pending map[int][]capture.Event // of looks whose beginning is not known yet
}

// Full reports whether workers were left out because there were too many.
func (b *Builder) Full() bool { return b.full }

// Record takes the next record of a capture.
func (b *Builder) Record(rec *capture.Record) {
	switch {
	case rec.Header != nil:
		b.sources++
		b.header, b.workers, b.depths, b.pending = *rec.Header, nil, nil, map[int][]capture.Event{}
	case rec.Process != nil:
		w := Worker{Host: b.header.Host.Name, Boot: b.header.Host.BootID, PID: rec.Process.PID, Start: rec.Process.Start}
		if w.Start == 0 {
			w.source = b.sources
		}
		b.workers = append(b.workers, w)
	case rec.Stack != nil:
		n := 0
		for i := range rec.Stack.Frames {
			if rec.Stack.Frames[i].Kind == stack.PHP {
				n++
			}
		}
		b.depths = append(b.depths, n)
	case rec.Event != nil:
		b.event(rec.Event)
	case rec.Look != nil:
		b.look(rec.Look)
	}
}

// event: where there is a clock, when an event was is known with its look,
// which comes after it.
func (b *Builder) event(e *capture.ProcessEvent) {
	switch i := e.Process; {
	case i < 0 || i >= len(b.workers):
	case b.header.Started.IsZero():
		b.at(b.workers[i], 0, &e.Event)
	case len(b.pending[i]) < maxPending:
		b.pending[i] = append(b.pending[i], e.Event)
	}
}

func (b *Builder) look(l *capture.Look) {
	if l.Process < 0 || l.Process >= len(b.workers) {
		return
	}
	w, base := b.workers[l.Process], l.At
	if t := b.header.Started; !t.IsZero() {
		base += time.Duration(t.UnixNano())
	}
	for i := range b.pending[l.Process] {
		b.at(w, base, &b.pending[l.Process][i])
	}
	delete(b.pending, l.Process)
	end := base + time.Duration(l.Observation.DurationMS)*time.Millisecond
	for _, m := range []struct {
		kind Kind
		fact string
	}{{Memory, "php.memory_usage"}, {CPU, "proc.cpu_pct"}} {
		if v, ok := number(l.Facts[m.fact]); ok {
			b.add(key{w, m.kind}, end, v)
		}
	}
}

// at takes an event of a look that began at base.
func (b *Builder) at(w Worker, base time.Duration, e *capture.Event) {
	if f := b.follower(w); f != nil {
		f.event(base+e.At, e)
	}
	if e.Stack >= 0 && e.Stack < len(b.depths) {
		b.add(key{w, Depth}, base+e.At, float64(b.depths[e.Stack]))
	}
}

func (b *Builder) add(k key, at time.Duration, v float64) {
	p := b.series[k]
	if p == nil {
		if len(b.series) >= maxSeries {
			b.full = true
			return
		}
		if b.series == nil {
			b.series = map[key]*points{}
		}
		p = &points{}
		b.series[k] = p
	}
	p.add(at, v)
}

func (b *Builder) follower(w Worker) *follower {
	f := b.blocks[w]
	if f == nil {
		if len(b.blocks) >= maxSeries {
			b.full = true
			return nil
		}
		if b.blocks == nil {
			b.blocks = map[Worker]*follower{}
		}
		f = &follower{}
		b.blocks[w] = f
	}
	return f
}

// Series are those that have a course to show, the largest change of each kind
// first. A depth that never changed says nothing and is left out.
func (b *Builder) Series() []Series {
	var out []Series
	take := func(k key, p *points) {
		if p != nil && len(p.kept) >= minPoints {
			out = append(out, Series{Worker: k.worker, Kind: k.kind, Points: p.kept, Seen: p.seen})
		}
	}
	for k, p := range b.series {
		if k.kind != Depth || p.varies() {
			take(k, p)
		}
	}
	for w, f := range b.blocks {
		take(key{w, Block}, f.best())
	}
	order := map[Kind]int{Block: 0, Memory: 1, Depth: 2, CPU: 3}
	slices.SortFunc(out, func(x, y Series) int {
		return cmp.Or(cmp.Compare(order[x.Kind], order[y.Kind]), cmp.Compare(y.Change(), x.Change()),
			cmp.Compare(x.Worker.Host, y.Worker.Host), cmp.Compare(x.Worker.PID, y.Worker.PID), cmp.Compare(x.Worker.source, y.Worker.source))
	})
	return out
}

func (p *points) varies() bool {
	return slices.ContainsFunc(p.kept, func(q Point) bool { return q.Value != p.kept[0].Value })
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
