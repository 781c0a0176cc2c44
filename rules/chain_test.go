package rules

import (
	"math"
	"testing"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

func mremap(addr, old, size uint64) Event {
	return Event{Kind: Stop, Symbol: "mremap", Args: []uint64{addr, old, size, 0}}
}

func mmap(hint, size uint64) Event {
	return Event{Kind: Stop, Symbol: "mmap", Args: []uint64{hint, size, 3, 0x22, math.MaxUint32, 0}}
}

// series makes n events from their number.
func series(n int, event func(i uint64) Event) []Event {
	out := make([]Event, n)
	for i := range out {
		out[i] = event(uint64(i))
	}
	return out
}

// interleave takes one event of each in turn.
func interleave(a, b []Event) []Event {
	var out []Event
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out
}

func TestAChainFollowsOneBlock(t *testing.T) {
	const at, other = 0x7fda7d200000, 0x7fda90000000
	concat := func(at, start uint64, n int) []Event {
		return series(n, func(i uint64) Event { return mremap(at, start+i*page, start+(i+1)*page) })
	}
	for _, c := range []struct {
		name   string
		events []Event
		want   Chain
	}{
		{"no events", nil, Chain{}},
		{"blocks that stay as they are", series(50, func(uint64) Event { return mmap(0, 2*mib) }), Chain{}},
		{"a string of PHP 7.3 and later", concat(at, 2*mib, 200),
			Chain{Steps: 200, Monotonic: true, SizeKnown: true, StartBytes: 2 * mib, EndBytes: 2*mib + 200*page, GrownBytes: 200 * page, Symbol: "mremap", Blocks: 1}},
		{"steps that were not seen", series(10, func(i uint64) Event { return mremap(at, 2*mib+i*8*page, 2*mib+i*8*page+page) }),
			Chain{Steps: 10, Monotonic: true, SizeKnown: true, StartBytes: 2 * mib, EndBytes: 2*mib + 73*page, GrownBytes: 73 * page, Symbol: "mremap", Blocks: 1}},
		{"a string of PHP 7.1: pages at its end", series(100, func(i uint64) Event { return mmap(at+i*page, page) }),
			Chain{Steps: 100, Monotonic: true, GrownBytes: 100 * page, Symbol: "mmap", Blocks: 1}},
		{"pages at its end, some not seen", series(10, func(i uint64) Event { return mmap(at+i*16*page, page) }),
			Chain{Steps: 10, Monotonic: true, GrownBytes: 145 * page, Symbol: "mmap", Blocks: 1}},
		{"pages at the end of a block that was seen", append([]Event{mmap(0, 3*mib)}, series(10, func(i uint64) Event { return mmap(at+3*mib+i*page, page) })...),
			Chain{Steps: 10, Monotonic: true, SizeKnown: true, StartBytes: 3 * mib, EndBytes: 3*mib + 10*page, GrownBytes: 10 * page, Symbol: "mmap", Blocks: 1}},
		{"a string of PHP 5.6, moved by the kernel", series(10, func(i uint64) Event {
			return Event{Kind: Stop, Symbol: "mremap", Args: []uint64{at + i*(1<<30), 15*mib + i*256*kib, 15*mib + (i+1)*256*kib, 1}}
		}), Chain{Steps: 10, Monotonic: true, SizeKnown: true, StartBytes: 15 * mib, EndBytes: 15*mib + 2560*kib, GrownBytes: 2560 * kib, Symbol: "mremap", Blocks: 1}},
		{"a string that is copied at each page", func() (evs []Event) {
			for i := range uint64(10) {
				evs = append(evs, mremap(at+i<<30, 2*mib+i*page, 2*mib+(i+1)*page), mmap(0, 2*mib+(i+1)*page))
			}
			return evs
		}(), Chain{Steps: 10, Monotonic: true, SizeKnown: true, StartBytes: 2 * mib, EndBytes: 2*mib + 10*page, GrownBytes: 10 * page, Quadratic: true, Symbol: "mremap", Blocks: 1}},
		{"an array that doubles and is copied", func() (evs []Event) {
			for size := uint64(2*mib + page); size < 64*mib; size = 2*size - page {
				evs = append(evs, mremap(at+size, size, 2*size-page), mmap(0, 2*size-page))
			}
			return evs
		}(), Chain{Steps: 5, Monotonic: true, SizeKnown: true, StartBytes: 2*mib + page, EndBytes: 64*mib + page, GrownBytes: 62 * mib, Symbol: "mremap", Blocks: 1}},
		{"a hash table that doubles into new blocks", []Event{mmap(0, 5*mib/2), mmap(0, 5*mib), mmap(0, 10*mib), mmap(0, 20*mib)},
			Chain{Steps: 3, Monotonic: true, SizeKnown: true, StartBytes: 5 * mib / 2, EndBytes: 20 * mib, GrownBytes: 35 * mib / 2, Symbol: "mmap", Blocks: 1}},
		{"room to align is no growth", []Event{mmap(0, 2*mib), mmap(0, 4*mib-page), mmap(0, 2*mib), mmap(0, 4*mib-page)}, Chain{}},
		{"two blocks in turn: the longer chain", interleave(concat(at, 2*mib, 20), concat(other, 8*mib, 30)),
			Chain{Steps: 30, Monotonic: true, SizeKnown: true, StartBytes: 8 * mib, EndBytes: 8*mib + 30*page, GrownBytes: 30 * page, Symbol: "mremap", Blocks: 2}},
		{"many short blocks do not drive out a long chain", interleave(concat(at, 2*mib, 20), series(500, func(i uint64) Event { return mremap(other+i<<24, mib, 2*mib) })),
			Chain{Steps: 20, Monotonic: true, SizeKnown: true, StartBytes: 2 * mib, EndBytes: 2*mib + 20*page, GrownBytes: 20 * page, Symbol: "mremap", Blocks: 64}},
		{"a block that shrinks between", []Event{mremap(at, 2*mib, 3*mib), mremap(at, 3*mib, 2*mib), mremap(at, 2*mib, 4*mib)},
			Chain{Steps: 2, SizeKnown: true, StartBytes: 2 * mib, EndBytes: 4 * mib, GrownBytes: 2 * mib, Symbol: "mremap", Blocks: 1}},
		{"mappings far from each other are two blocks", []Event{mmap(at, page), mmap(at+page, page), mmap(at+1<<40, page)},
			Chain{Steps: 2, Monotonic: true, GrownBytes: 2 * page, Symbol: "mmap", Blocks: 2}},
		{"MAP_FIXED puts, and does not grow", []Event{{Kind: Stop, Symbol: "mmap", Args: []uint64{at, page, 3, 0x32}}, {Kind: Stop, Symbol: "mmap", Args: []uint64{at + page, page, 3, 0x32}}}, Chain{}},
		{"samples are no stops", []Event{{Kind: Sample, Symbol: "mremap", Args: []uint64{at, mib, 2 * mib, 0}}}, Chain{}},
		{"arguments that were not read", []Event{{Kind: Stop, Symbol: "mremap"}, {Kind: Stop, Symbol: "mmap", Args: []uint64{1}}}, Chain{}},
		{"lengths that no process has", []Event{mremap(at, 0, mib), mremap(at, mib, 0), mremap(at, 1<<63, math.MaxUint64), mmap(at, math.MaxUint64), mmap(0, 0)}, Chain{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := DeriveChain(c.events); got != c.want {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// FuzzChain holds that arguments from a hostile process give figures that fit
// together.
func FuzzChain(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\xff\xff\xff\xff\xff\xff\xff\xff"), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, shift uint8) {
		var evs []Event
		for len(b) >= 4 {
			args := make([]uint64, 4)
			for i := range args {
				args[i] = uint64(b[i]) << (shift % 57)
				if b[i] == 0xff {
					args[i] = math.MaxUint64 - uint64(shift)
				}
			}
			evs = append(evs, Event{Kind: Stop, Symbol: []string{"mmap", "mremap"}[b[0]&1], Args: args})
			b = b[4:]
		}
		c := DeriveChain(evs)
		if c.Steps > len(evs) || c.GrownBytes > 2*maxLen || c.EndBytes > 2*maxLen || c.StartBytes > maxLen {
			t.Errorf("%+v from %d events", c, len(evs))
		}
		if c.Steps > 0 && c.Symbol == "" || c.Monotonic && c.SizeKnown && c.EndBytes != c.StartBytes+c.GrownBytes {
			t.Errorf("%+v", c)
		}
	})
}
