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
// hinted mmap. It is simpler than the chain that rules derive: a drawing of
// growth may lose a block that moved, a verdict may not.
type follower struct {
	blocks []*block
}

type block struct {
	addr, len uint64
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
	case e.Symbol == "mmap" && len(e.Args) >= 4 && e.Args[0] != 0 && e.Args[3]&mapFixed == 0:
		f.extend(at, e.Args[0], e.Args[1])
	}
}

// mremap: a block is known by its address, or, when it was moved, by its length.
func (f *follower) mremap(at time.Duration, addr, old, size uint64) {
	if old == 0 || size == 0 || old > maxLen || size > maxLen {
		return
	}
	b := f.find(func(b *block) bool { return b.addr == addr })
	if b == nil {
		b = f.find(func(b *block) bool { return b.len == old })
	}
	if b == nil {
		b = f.add(addr)
		b.points.add(at, float64(old))
	}
	b.addr = addr
	b.grow(at, size)
}

// extend is a mapping that is wanted at hint, where a block ends.
func (f *follower) extend(at time.Duration, hint, size uint64) {
	if hint > maxLen<<1 || size == 0 || size > maxLen {
		return
	}
	b := f.find(func(b *block) bool { return b.len > 0 && b.addr+b.len == hint })
	if b == nil {
		b = f.add(hint)
	}
	b.grow(at, hint-b.addr+size)
}

func (b *block) grow(at time.Duration, size uint64) {
	if size > b.len {
		b.steps++
	}
	b.len = size
	b.points.add(at, float64(size))
}

func (f *follower) find(ok func(*block) bool) *block {
	for i := len(f.blocks) - 1; i >= 0; i-- {
		if ok(f.blocks[i]) {
			return f.blocks[i]
		}
	}
	return nil
}

// add makes room by dropping the block that grew least often.
func (f *follower) add(addr uint64) *block {
	b := &block{addr: addr}
	if len(f.blocks) < maxBlocks {
		f.blocks = append(f.blocks, b)
		return b
	}
	least := 0
	for i := range f.blocks {
		if f.blocks[i].steps < f.blocks[least].steps {
			least = i
		}
	}
	f.blocks[least] = b
	return b
}

// best is the block that grew most often; nil without any.
func (f *follower) best() *points {
	var best *block
	for _, b := range f.blocks {
		if b.steps > 0 && (best == nil || b.steps > best.steps) {
			best = b
		}
	}
	if best == nil {
		return nil
	}
	return &best.points
}
