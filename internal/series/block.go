package series

import (
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
)

const (
	maxLen   = 1 << 46 // x86-64 user space has 2^47 bytes
	mapFixed = 0x10    // MAP_FIXED: a block is put there, not grown
)

// follower follows the blocks of one worker by the arguments of mremap and
// mmap. It knows blocks again as rules.DeriveChain does, but is simpler: a
// drawing of growth may lose a block that moved, a verdict may not.
type follower struct {
	blocks []*block
}

type block struct {
	addr, len uint64 // addr is 0 where it is not known
	steps     int
	points    points
}

func (f *follower) event(at time.Duration, e *capture.Event) {
	if e.Kind != capture.Stop {
		return
	}
	switch {
	case e.Symbol == "mremap" && len(e.Args) >= 3:
		f.mremap(at, e.Args[0], e.Args[1], e.Args[2])
	case e.Symbol == "mmap" && len(e.Args) >= 4 && e.Args[3]&mapFixed == 0:
		f.mmap(at, e.Args[0], e.Args[1])
	}
}

// mremap: a block is where it was and as long as it was, or has grown unseen,
// or has moved.
func (f *follower) mremap(at time.Duration, addr, old, size uint64) {
	if old == 0 || size == 0 || old > maxLen || size > maxLen {
		return
	}
	b := f.find(func(b *block) bool { return b.addr == addr && b.len == old })
	if b == nil {
		b = f.find(func(b *block) bool { return b.addr == addr && b.len < old })
	}
	if b == nil {
		b = f.find(func(b *block) bool { return b.len == old })
	}
	if b == nil {
		b = f.add(at, addr, old)
	}
	b.addr = addr
	b.grow(at, size)
}

// mmap with a hint extends the block that ends there; without one it may
// replace a block by one up to twice as large.
func (f *follower) mmap(at time.Duration, hint, size uint64) {
	if hint > 2*maxLen || size == 0 || size > maxLen {
		return
	}
	var b *block
	if hint != 0 {
		if b = f.find(func(b *block) bool { return b.addr != 0 && b.addr+b.len == hint }); b == nil {
			b = f.add(at, hint, 0)
		}
		b.grow(at, hint-b.addr+size)
		return
	}
	if b = f.find(func(b *block) bool { return b.addr == 0 && size > b.len && size/2 <= b.len }); b != nil {
		b.grow(at, size)
		return
	}
	if f.find(func(b *block) bool { return b.len == size && b.steps > 0 }) == nil {
		f.add(at, 0, size)
	}
}

func (b *block) grow(at time.Duration, size uint64) {
	if size > b.len {
		b.steps++
	}
	b.len = size
	b.points.add(at, float64(size))
}

// find returns the matching block that was added last.
func (f *follower) find(ok func(*block) bool) *block {
	for i := len(f.blocks) - 1; i >= 0; i-- {
		if ok(f.blocks[i]) {
			return f.blocks[i]
		}
	}
	return nil
}

// add makes room by dropping the block that grew least often, the oldest of those.
func (f *follower) add(at time.Duration, addr, size uint64) *block {
	if len(f.blocks) == maxBlocks {
		least := 0
		for i := range f.blocks {
			if f.blocks[i].steps < f.blocks[least].steps {
				least = i
			}
		}
		f.blocks = append(f.blocks[:least], f.blocks[least+1:]...)
	}
	b := &block{addr: addr, len: size}
	if size > 0 {
		b.points.add(at, float64(size))
	}
	f.blocks = append(f.blocks, b)
	return b
}

// best is the block that grew most often, the largest of those; nil without any.
func (f *follower) best() *points {
	var best *block
	for _, b := range f.blocks {
		if b.steps > 0 && (best == nil || b.steps > best.steps || b.steps == best.steps && b.len > best.len) {
			best = b
		}
	}
	if best == nil {
		return nil
	}
	return &best.points
}
