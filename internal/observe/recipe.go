package observe

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// A loop stops at the same few stacks thousands of times. Once a stack has been
// read, all that its reading hung on is known: the registers and words that led
// the unwinder, and every byte that was read of PHP. A stop that agrees in these
// has that stack; nothing else can make a difference. Comparing them takes one
// read of some hundred bytes.

// maxRecipe bounds what a recipe compares, in bytes: deep recursion is rather
// read anew.
const maxRecipe = 64 << 10

// place is where a thread stopped.
type place struct {
	tid, bp     int
	pc, sp, tls remote.Addr
}

// recipe is what a stack that was read hangs on.
type recipe struct {
	at    place
	stack int
	php   bool // the thread was seen running PHP
	img   *symbolize.Image
	regs  []regCheck
	words []memCheck
	not   []notCheck
}

// regCheck: a register has a value.
type regCheck struct {
	reg  int
	want uint64
}

// memCheck: memory has these bytes.
type memCheck struct {
	at   remote.Addr
	want []byte
	off  int // in what the group gathers
}

// notCheck: a register, or a word of memory, is no frame of PHP's.
type notCheck struct {
	reg  int // -1 for a word
	at   remote.Addr
	none []remote.Addr
	off  int
}

// recorder notes what is read through it.
type recorder struct {
	r     remote.Reader
	log   []memCheck
	size  int
	short bool // a read failed, or there were too many
}

// ReadMemory implements remote.Reader.
func (r *recorder) ReadMemory(p []byte, at remote.Addr) (int, error) {
	n, err := r.r.ReadMemory(p, at)
	if r.size += n; n < len(p) || r.size > maxRecipe {
		r.short = true
	}
	if !r.short {
		r.log = append(r.log, memCheck{at: at, want: bytes.Clone(p)})
	}
	return n, err
}

// over returns a reader of the snapshot, which records unless rec is nil.
func (r *recorder) over(snap *target.Snapshot) remote.Reader {
	if r == nil {
		return snap
	}
	return r
}

// reading is one stop as it was read.
type reading struct {
	walk  symbolize.Walk
	trace symbolize.Trace
	img   *symbolize.Image
	php   *walked
}

// recipe makes a recipe of a stop that was read; nil where that hung on more
// than a recipe can hold.
func (s *session) recipe(at place, snap *target.Snapshot, rd *reading, rec *recorder) *recipe {
	o, ok := rd.img.Origins(&rd.walk, remote.R14, remote.R15)
	if !ok || rec.short {
		return nil
	}
	k := &recipe{at: at, img: rd.img, words: rec.log, php: rd.php != nil && len(rd.php.frames) > 0}
	for _, a := range o.Words {
		if !k.word(snap, a) {
			return nil
		}
	}
	for _, n := range o.Regs {
		if !k.register(snap, n) {
			return nil
		}
	}
	if !k.kept(snap, rd, o.Kept) {
		return nil
	}
	k.tidy()
	return k
}

func (k *recipe) word(snap *target.Snapshot, at remote.Addr) bool {
	b := make([]byte, 8)
	if remote.ReadFull(snap, b, at) != nil {
		return false
	}
	k.words = append(k.words, memCheck{at: at, want: b})
	return true
}

func (k *recipe) register(snap *target.Snapshot, n int) bool {
	v, ok := snap.Regs.Get(n)
	k.regs = append(k.regs, regCheck{n, v})
	return ok
}

// kept adds what joining looks at: whether r14 is one of PHP's frames, and if
// so, or in the interpreter itself, which one, and r15.
func (k *recipe) kept(snap *target.Snapshot, rd *reading, kept [][]symbolize.Origin) bool {
	var eds []remote.Addr
	if rd.php != nil {
		for i := range rd.php.frames {
			eds = append(eds, rd.php.frames[i].ExecuteData)
		}
	}
	physical := 0
	for i := range rd.trace.Frames {
		f := &rd.trace.Frames[i]
		if f.Regs == nil {
			continue
		}
		if physical == len(kept) {
			return false
		}
		from := kept[physical]
		physical++
		ed, known := f.Regs.Get(remote.R14)
		if !known {
			// It stays unknown, unless that was because memory was not there.
			if from[0].Source != symbolize.Unknown {
				return false
			}
			continue
		}
		if f.Function == stack.Executor || slices.Contains(eds, remote.Addr(ed)) {
			if !k.same(snap, from[0]) || !k.same(snap, from[1]) {
				return false
			}
			continue
		}
		switch o := from[0]; o.Source {
		case symbolize.Register:
			k.not = append(k.not, notCheck{reg: o.Reg, none: eds})
		case symbolize.Word:
			k.not = append(k.not, notCheck{reg: -1, at: o.At, none: eds})
		case symbolize.Unknown:
			return false
		case symbolize.Fixed:
		}
	}
	return physical == len(kept)
}

func (k *recipe) same(snap *target.Snapshot, o symbolize.Origin) bool {
	switch o.Source {
	case symbolize.Register:
		return k.register(snap, o.Reg)
	case symbolize.Word:
		return k.word(snap, o.At)
	case symbolize.Fixed:
		return true
	case symbolize.Unknown:
	}
	return false
}

// tidy sorts the checks and joins those that overlap or touch.
func (k *recipe) tidy() {
	slices.SortFunc(k.words, func(a, b memCheck) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(len(b.want), len(a.want)))
	})
	out := k.words[:0]
	for _, c := range k.words {
		if n := len(out); n > 0 {
			last := &out[n-1]
			// Both were read of one snapshot, so they agree where they overlap.
			if over, ok := last.end().Distance(c.at); ok {
				if int(over) < len(c.want) {
					last.want = append(last.want, c.want[over:]...)
				}
				continue
			}
		}
		out = append(out, c)
	}
	k.words = out
}

func (c *memCheck) end() remote.Addr { return c.at + remote.Addr(len(c.want)) }

// in reports whether a snapshot agrees with the recipe.
func (k *recipe) in(snap *target.Snapshot) bool {
	if !k.registers(&snap.Regs) {
		return false
	}
	var b [256]byte
	for i := range k.words {
		for at, want := k.words[i].at, k.words[i].want; len(want) > 0; {
			n := min(len(want), len(b))
			if remote.ReadFull(snap, b[:n], at) != nil || !bytes.Equal(b[:n], want[:n]) {
				return false
			}
			at, want = at+remote.Addr(n), want[n:]
		}
	}
	for i := range k.not {
		c := &k.not[i]
		if c.reg >= 0 {
			continue
		}
		v, err := remote.Pointer(snap, c.at)
		if err != nil || slices.Contains(c.none, v) {
			return false
		}
	}
	return true
}

func (k *recipe) registers(r *remote.Regs) bool {
	for _, c := range k.regs {
		if v, ok := r.Get(c.reg); !ok || v != c.want {
			return false
		}
	}
	for i := range k.not {
		if c := &k.not[i]; c.reg >= 0 {
			if v, ok := r.Get(c.reg); !ok || slices.Contains(c.none, remote.Addr(v)) {
				return false
			}
		}
	}
	return true
}

// inGathered is in for memory that a group has read.
func (k *recipe) inGathered(r *remote.Regs, b []byte) bool {
	if !k.registers(r) {
		return false
	}
	for i := range k.words {
		if c := &k.words[i]; !bytes.Equal(b[c.off:c.off+len(c.want)], c.want) {
			return false
		}
	}
	for i := range k.not {
		c := &k.not[i]
		if c.reg < 0 && slices.Contains(c.none, remote.Addr(binary.LittleEndian.Uint64(b[c.off:]))) {
			return false
		}
	}
	return true
}
