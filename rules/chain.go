package rules

// Chain is the growth of one block of memory, seen in the arguments of mmap
// and mremap. Only arguments are known, not results: a stop is at the
// function's first instruction. Stops may have been left out when they came
// too fast, so the steps are those that were seen.
type Chain struct {
	Steps     int
	Monotonic bool // it never shrank
	// SizeKnown is unset when only additions at the block's end were seen, as
	// PHP 7.0 to 7.2 make them: StartBytes and EndBytes are then 0.
	SizeKnown  bool
	StartBytes uint64
	EndBytes   uint64
	GrownBytes uint64 // from the first to the last step that was seen
	// Quadratic: the steps are of one size and most of them copied the whole
	// block, so that growing it takes time quadratic in its size.
	Quadratic bool
	Symbol    string // the function that made most steps
	// Blocks counts the blocks that grew, this one among them: many when a block
	// grows, is dropped, and the next one grows as much.
	Blocks int
}

const (
	// maxBlocks bounds the blocks that are followed at a time.
	maxBlocks = 64
	// maxLen is the largest length that is believed: x86-64 user space has 2^47 bytes.
	maxLen = 1 << 46
	// maxUnseen bounds what a block may have grown between two stops that were seen.
	maxUnseen = 64 << 20
	// chunk is how zend_alloc.c aligns huge blocks (ZEND_MM_CHUNK_SIZE).
	chunk = 2 << 20
	page  = 4096

	mapFixed      = 0x10 // MAP_FIXED: the block is put there, not grown
	mremapMayMove = 1    // MREMAP_MAYMOVE: the kernel moves pages without copying
)

// block is a chain in the making.
type block struct {
	Chain
	addr     uint64 // 0 when it is at a place that is not known yet
	len      uint64
	copied   int // moves that copied it
	minStep  uint64
	maxStep  uint64
	bySymbol map[string]int
	used     int // when it was last seen, to drop the oldest
}

// DeriveChain finds the block that grew in most steps, among any number that
// grow in turn.
func DeriveChain(events []Event) Chain {
	var t tracker
	for i := range events {
		ev := &events[i]
		if ev.Kind != Stop {
			continue
		}
		var args [4]uint64
		n := copy(args[:], ev.Args)
		switch {
		case ev.Symbol == "mremap" && n >= 3:
			t.mremap(args[0], args[1], args[2], args[3])
		case ev.Symbol == "mmap" && n >= 2:
			t.mmap(args[0], args[1], args[3])
		}
	}
	var best *block
	grown := 0
	for _, b := range t.blocks {
		if b.Steps > 0 {
			grown++
		}
		if best == nil || b.Steps > best.Steps || b.Steps == best.Steps && b.len > best.len {
			best = b
		}
	}
	if best == nil || best.Steps == 0 {
		return Chain{}
	}
	c := best.finish()
	c.Blocks = grown
	return c
}

func (b *block) finish() Chain {
	c := b.Chain
	if b.len > b.StartBytes {
		c.GrownBytes = b.len - b.StartBytes
	}
	if b.SizeKnown {
		c.EndBytes = b.len
	}
	most := 0
	for s, n := range b.bySymbol {
		if n > most || n == most && s > c.Symbol {
			c.Symbol, most = s, n
		}
	}
	c.Quadratic = b.Steps >= 4 && b.copied*2 > b.Steps && b.maxStep <= 2*b.minStep
	return c
}

// tracker follows the blocks that events tell of.
type tracker struct {
	blocks []*block
	clock  int
}

// mremap follows a block that is to be resized from old to size.
func (t *tracker) mremap(addr, old, size, flags uint64) {
	if old == 0 || size == 0 || old > maxLen || size > maxLen {
		return
	}
	b := t.find(func(b *block) bool { return b.addr == addr && b.len == old })
	if b == nil {
		// It may have grown unseen.
		b = t.find(func(b *block) bool { return b.addr == addr && b.len < old && b.SizeKnown })
	}
	if b == nil {
		// It was moved, to where only this call tells.
		if b = t.find(func(b *block) bool { return b.len == old && b.SizeKnown }); b != nil && b.addr != 0 && flags&mremapMayMove == 0 {
			b.copied++
		}
	}
	if b == nil {
		b = t.add(addr, old)
	}
	b.addr = addr
	t.resize(b, size, "mremap")
}

// mmap follows a block that is extended at its end, or replaced by a larger copy.
func (t *tracker) mmap(hint, size, flags uint64) {
	if size == 0 || size > maxLen || flags&mapFixed != 0 {
		return
	}
	if hint != 0 {
		t.extend(hint, size)
		return
	}
	// Growing in place has failed: the same size is asked for anew.
	if b := t.find(func(b *block) bool { return b.len == size && b.Steps > 0 && b.SizeKnown }); b != nil {
		b.copied++
		b.addr = 0
		return
	}
	// zend_mm_chunk_alloc_int asks again with room to align when the first
	// answer was not aligned; the surplus is given back.
	if t.find(func(b *block) bool { return b.addr == 0 && size == b.len+chunk-page }) != nil {
		return
	}
	// A block at an unknown place is replaced by one that is up to twice as large.
	if b := t.find(func(b *block) bool { return b.addr == 0 && size > b.len && size/2 <= b.len }); b != nil {
		b.copied++
		t.resize(b, size, "mmap")
		return
	}
	t.add(0, size)
}

// extend follows a mapping that is wanted at hint: where a block ends.
func (t *tracker) extend(hint, size uint64) {
	end := func(b *block) uint64 { return b.addr + b.len }
	b := t.find(func(b *block) bool { return b.addr != 0 && end(b) == hint })
	if b == nil {
		// It may have grown unseen.
		b = t.find(func(b *block) bool { return b.addr != 0 && end(b) < hint && hint-end(b) <= maxUnseen })
	}
	if b == nil {
		// Or it was made at a place that was not known: at the start of a chunk.
		if b = t.find(func(b *block) bool { return b.addr == 0 && hint > b.len && (hint-b.len)%chunk == 0 }); b != nil {
			b.addr = hint - b.len
		}
	}
	if b == nil {
		b = t.add(hint, 0)
		b.SizeKnown = false
	}
	if grown := hint - b.addr; grown <= maxLen {
		t.resize(b, grown+size, "mmap")
	}
}

// find returns the matching block that was seen last.
func (t *tracker) find(ok func(*block) bool) *block {
	var best *block
	for _, b := range t.blocks {
		if ok(b) && (best == nil || b.used > best.used) {
			best = b
		}
	}
	return best
}

func (t *tracker) add(addr, size uint64) *block {
	t.clock++
	b := &block{addr: addr, len: size, used: t.clock, bySymbol: make(map[string]int)}
	b.StartBytes, b.Monotonic, b.SizeKnown = size, true, true
	if len(t.blocks) < maxBlocks {
		t.blocks = append(t.blocks, b)
		return b
	}
	oldest := 0
	for i, o := range t.blocks {
		// A long chain is worth keeping even when another block is newer.
		if p := t.blocks[oldest]; o.Steps < p.Steps || o.Steps == p.Steps && o.used < p.used {
			oldest = i
		}
	}
	t.blocks[oldest] = b
	return b
}

func (t *tracker) resize(b *block, size uint64, symbol string) {
	t.clock++
	b.used = t.clock
	if size <= b.len {
		b.Monotonic = b.Monotonic && size == b.len
		b.len = size
		return
	}
	d := size - b.len
	if b.Steps == 0 || d < b.minStep {
		b.minStep = d
	}
	b.maxStep = max(b.maxStep, d)
	b.len = size
	b.Steps++
	b.bySymbol[symbol]++
}
