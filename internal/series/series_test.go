package series

import (
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

func stop(at int, symbol string, args ...uint64) capture.Event {
	return capture.Event{At: time.Duration(at) * time.Millisecond, Kind: capture.Stop, Symbol: symbol, Args: args}
}

// built is what the builder makes of one process's events, as of a capture
// that knows no clock.
func built(events []capture.Event) []Series {
	var b Builder
	b.Record(&capture.Record{Header: &capture.Header{}})
	b.Record(&capture.Record{Process: &capture.Process{PID: 7}})
	b.Record(&capture.Record{Stack: &capture.PlacedStack{}})
	for _, e := range events {
		b.Record(&capture.Record{Event: &capture.ProcessEvent{Event: e}})
	}
	b.Record(&capture.Record{Look: &capture.Look{}})
	return b.Series()
}

func TestBlocksAreFollowed(t *testing.T) {
	const page, a, b = 4096, 0x7f0000000000, 0x7f1000000000
	for _, c := range []struct {
		name   string
		events []capture.Event
		want   []float64 // nil: no series
	}{
		{"mremap grows a block", []capture.Event{stop(0, "mremap", a, page, 2*page, 0), stop(1, "mremap", a, 2*page, 3*page, 0)},
			[]float64{page, 2 * page, 3 * page}},
		{"two blocks in turn do not mix", []capture.Event{stop(0, "mremap", a, page, 2*page, 0), stop(1, "mremap", b, 100*page, 101*page, 0),
			stop(2, "mremap", a, 2*page, 3*page, 0), stop(3, "mremap", b, 101*page, 102*page, 0), stop(4, "mremap", a, 3*page, 4*page, 0)},
			[]float64{page, 2 * page, 3 * page, 4 * page}},
		{"a block that moved is known by its length", []capture.Event{stop(0, "mremap", a, page, 2*page, 1), stop(1, "mremap", b, 2*page, 3*page, 1)},
			[]float64{page, 2 * page, 3 * page}},
		{"another block at the same place is another", []capture.Event{stop(0, "mremap", a, 8*page, 16*page, 0), stop(1, "mremap", a, page, 2*page, 0),
			stop(2, "mremap", a, 2*page, 3*page, 0)}, []float64{page, 2 * page, 3 * page}},
		{"hinted mmap extends", []capture.Event{stop(0, "mmap", a, page, 3, 0x22), stop(1, "mmap", a+page, page, 3, 0x22), stop(2, "mmap", a+2*page, page, 3, 0x22)},
			[]float64{page, 2 * page, 3 * page}},
		{"a fixed mapping grows nothing", []capture.Event{stop(0, "mmap", a, page, 3, 0x32), stop(1, "mmap", a+page, page, 3, 0x32), stop(2, "mmap", a+2*page, page, 3, 0x32)}, nil},
		{"lengths that no kernel takes", []capture.Event{stop(0, "mremap", a, 1<<63, 1<<63+1, 0), stop(1, "mremap", a, 0, 1, 0), stop(2, "mmap", 1<<63, 1<<63, 3, 0)}, nil},
		{"too few arguments", []capture.Event{stop(0, "mremap", a, page), stop(1, "mmap", a), stop(2, "mremap")}, nil},
		{"one step is no course", []capture.Event{stop(0, "mremap", a, page, 2*page, 0)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []float64
			for _, s := range built(c.events) {
				if s.Kind != Block {
					t.Fatalf("a series of %s", s.Kind)
				}
				for _, p := range s.Points {
					got = append(got, p.Value)
				}
			}
			if len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Fatalf("got %v, want %v", got, c.want)
				}
			}
		})
	}
}

func TestLongSeriesKeepTheirPeakAndEnd(t *testing.T) {
	var p points
	const n = 100_000
	for i := range n {
		v := float64(i % 10)
		if i == 31_415 {
			v = 1000
		}
		p.add(time.Duration(i), v)
	}
	p.add(n, 5)
	high := 0.0
	for i, q := range p.kept {
		high = max(high, q.Value)
		if i > 0 && q.At <= p.kept[i-1].At {
			t.Fatalf("point %d goes back in time", i)
		}
	}
	if len(p.kept) > maxPoints || len(p.kept) < maxPoints/2 || p.seen != n+1 {
		t.Errorf("%d points kept of %d", len(p.kept), p.seen)
	}
	if high != 1000 || p.kept[len(p.kept)-1].At != n {
		t.Errorf("peak %v, end at %d: want 1000 and %d", high, p.kept[len(p.kept)-1].At, n)
	}
}

func TestDepthAndFactsFollowTheLooks(t *testing.T) {
	deep := func(n int) *capture.PlacedStack {
		s := &capture.PlacedStack{Stack: stack.Stack{Frames: []stack.Frame{{Kind: stack.Native, Function: "execute_ex"}}}}
		for range n {
			s.Frames = append(s.Frames, stack.Frame{Kind: stack.PHP, Function: "f"})
		}
		return s
	}
	var b Builder
	b.Record(&capture.Record{Header: &capture.Header{Started: time.Unix(1000, 0), Host: capture.Host{Name: "h"}}})
	b.Record(&capture.Record{Process: &capture.Process{PID: 7, Start: 5}})
	b.Record(&capture.Record{Stack: deep(1)})
	b.Record(&capture.Record{Stack: deep(4)})
	for i := range 3 {
		for j, st := range []int{0, 1, 1, 99} { // the last one is not there
			b.Record(&capture.Record{Event: &capture.ProcessEvent{Event: capture.Event{At: time.Duration(j), Kind: capture.Sample, Stack: st}}})
		}
		b.Record(&capture.Record{Look: &capture.Look{At: time.Duration(i) * time.Second,
			Facts: map[string]any{"php.memory_usage": int64(i) << 20, "proc.cpu_pct": "much"}}})
	}
	b.Record(&capture.Record{Event: &capture.ProcessEvent{Process: 9}}) // of nobody
	b.Record(&capture.Record{Look: &capture.Look{Process: -1}})
	got := b.Series()
	if len(got) != 2 || got[0].Kind != Memory || got[1].Kind != Depth {
		t.Fatalf("got %+v", got)
	}
	if m := got[0]; m.Change() != 2<<20 || m.Points[2].At-m.Points[0].At != 2*time.Second || m.Worker.Host != "h" {
		t.Errorf("memory: %+v", m)
	}
	if d := got[1]; d.Seen != 9 || d.Points[0].Value != 1 || d.Points[1].Value != 4 {
		t.Errorf("depth: %+v", d)
	}
}
