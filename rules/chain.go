package rules

// Chain is the growth of one block of memory, seen in the arguments of mmap
// and mremap. Only arguments are known, not results: a stop is at the
// function's first instruction.
type Chain struct {
	Steps      int
	Monotonic  bool // it never shrank
	StartBytes uint64
	EndBytes   uint64
	// Quadratic: the steps are equally small and most of them copied the whole
	// block, so that growing it takes time quadratic in its size.
	Quadratic bool
	Symbol    string // the function that made most steps
}

// block is a chain in the making.
type block struct {
	Chain
	addr     uint64 // 0 after a move to a place that is not known
	len      uint64
	moved    int
	minStep  uint64
	maxStep  uint64
	bySymbol map[string]int
	used     int // when it last grew, to drop the oldest
}

const (
	// maxBlocks bounds the blocks that are followed at a time.
	maxBlocks = 64
	// maxLen is the largest length that is believed.
	maxLen = 1 << 46
	// mapFixed is MAP_FIXED: the block is put there, not grown.
	mapFixed = 0x10
)

// DeriveChain finds the block that grew in most steps.
func DeriveChain(events []Event) Chain {
	var t tracker
	for i := range events {
		ev := &events[i]
		if ev.Kind != Stop {
			continue
		}
		switch {
		case ev.Symbol == "mremap" && len(ev.Args) >= 3:
			t.mremap(ev.Args[0], ev.Args[1], ev.Args[2])
		case ev.Symbol == "mmap" && len(ev.Args) >= 2:
			flags := uint64(0)
			if len(ev.Args) >= 4 {
				flags = ev.Args[3]
			}
			t.mmap(ev.Args[0], ev.Args[1], flags)
		}
	}
	var best *block
	for _, b := range t.blocks {
		if best == nil || b.Steps > best.Steps || b.Steps == best.Steps && b.EndBytes > best.EndBytes {
			best = b
		}
	}
	if best == nil || best.Steps == 0 {
		return Chain{}
	}
	return best.finish()
}

func (b *block) finish() Chain {
	c := b.Chain
	c.EndBytes = b.len
	most := 0
	for s, n := range b.bySymbol {
		if n > most || n == most && s > c.Symbol {
			c.Symbol, most = s, n
		}
	}
	c.Quadratic = b.Steps >= 4 && b.moved*2 > b.Steps && b.maxStep <= 2*b.minStep
	return c
}

type tracker struct {
	blocks []*block
	clock  int
}

// mremap extends the block whose last size is old. Events may have been left
// out when they came too fast, so a block at the same address may have grown
// unseen.
func (t *tracker) mremap(addr, old, size uint64) {
	if old == 0 || size == 0 || old > maxLen || size > maxLen {
		return
	}
	b := t.find(func(b *block) bool { return b.addr == addr && b.len == old })
	if b == nil {
		b = t.find(func(b *block) bool { return b.addr == addr && b.len < old })
	}
	if b == nil {
		// The kernel moved it (MREMAP_MAYMOVE), or it was copied to a new one.
		if b = t.find(func(b *block) bool { return b.len == old && b.addr != addr }); b != nil {
			b.moved++
		}
	}
	if b == nil {
		b = t.add(addr, old)
	}
	b.addr = addr
	t.grow(b, size, "mremap")
}

// mmap extends a block at its end, or replaces one by a larger copy.
func (t *tracker) mmap(hint, size, flags uint64) {
	if size == 0 || size > maxLen || flags&mapFixed != 0 {
		return
	}
	if hint != 0 {
		b := t.find(func(b *block) bool { return b.addr != 0 && b.addr+b.len == hint })
		if b == nil {
			// Where it begins is not known; count from the page before.
			b = t.add(hint, 0)
			b.addr = hint
		}
		t.grow(b, b.len+size, "mmap")
		return
	}
	// Growing in place has failed: the same size is asked for anew.
	if b := t.find(func(b *block) bool { return b.len == size && b.Steps > 0 }); b != nil {
		b.moved++
		b.addr = 0
		return
	}
	// A block is replaced by one up to twice as large.
	if b := t.find(func(b *block) bool { return b.len > 0 && b.addr == 0 && size > b.len && size/2 <= b.len }); b != nil {
		b.moved++
		t.grow(b, size, "mmap")
		return
	}
	t.add(0, size)
}

// find returns the matching block that grew last.
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
	b.StartBytes, b.Monotonic = size, true
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

func (t *tracker) grow(b *block, size uint64, symbol string) {
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
