package capture

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/phpwhy/phpwhy/internal/stack"
)

// Interner keeps each distinct stack once. The zero value is ready to use; it
// is not safe for concurrent use.
//
// Two stacks are one when they took the same path: function arguments do not
// count, because a growing block's length would make every stop a stack of its
// own. The stack that is kept shows the arguments of the first stop; those of
// each stop are in its Event. Values of PHP variables do not count either.
type Interner struct {
	seed   maphash.Seed
	ids    map[uint64][]int // by hash; almost always one
	stacks []stack.Stack
}

// Add returns the index of s in Stacks and whether s is new there. The frames
// are copied in that case, so that the caller may reuse its buffer.
func (in *Interner) Add(s stack.Stack) (id int, added bool) {
	if in.ids == nil {
		in.seed, in.ids = maphash.MakeSeed(), make(map[uint64][]int)
	}
	n, h := &s, in.hash(&s)
	for _, id := range in.ids[h] {
		if samePath(&in.stacks[id], n) {
			return id, false
		}
	}
	// Only now make the normal form, which costs a copy. A text that is not
	// UTF-8 differs from its normal form, so look again under its own hash.
	norm := normalStack(s)
	if nh := in.hash(&norm); nh != h {
		h = nh
		for _, id := range in.ids[h] {
			if samePath(&in.stacks[id], &norm) {
				return id, false
			}
		}
	}
	id = len(in.stacks)
	in.stacks = append(in.stacks, norm)
	in.ids[h] = append(in.ids[h], id)
	return id, true
}

// Stacks are the distinct stacks in the order in which they were first added.
// The slice belongs to the Interner until it is dropped.
func (in *Interner) Stacks() []stack.Stack { return in.stacks }

// Len is the number of distinct stacks.
func (in *Interner) Len() int { return len(in.stacks) }

func (in *Interner) hash(s *stack.Stack) uint64 {
	var h maphash.Hash
	h.SetSeed(in.seed)
	str := func(ss ...string) {
		for _, s := range ss {
			h.WriteString(s)
			h.WriteByte(0)
		}
	}
	num := func(ns ...uint64) {
		var b [8]byte
		for _, n := range ns {
			binary.LittleEndian.PutUint64(b[:], n)
			h.Write(b[:])
		}
	}
	str(string(s.End), s.Error)
	for i := range s.Frames {
		f := &s.Frames[i]
		str(string(f.Kind), f.Function, f.File)
		num(uint64(f.Line), uint64(f.PC), f.Offset)
		// The rest follows from these in all but odd cases, which the
		// comparison tells apart.
	}
	return h.Sum64()
}

func samePath(a, b *stack.Stack) bool {
	if a.End != b.End || a.Error != b.Error || len(a.Frames) != len(b.Frames) {
		return false
	}
	for i := range a.Frames {
		if !sameFrame(&a.Frames[i], &b.Frames[i]) {
			return false
		}
	}
	return true
}

// sameFrame compares everything but the arguments and the values.
func sameFrame(a, b *stack.Frame) bool {
	return a.Kind == b.Kind && a.Function == b.Function && a.File == b.File && a.Line == b.Line &&
		a.PC == b.PC && a.Offset == b.Offset && a.Inlined == b.Inlined && a.Internal == b.Internal &&
		a.Raw == b.Raw && a.Module == b.Module && a.How == b.How && a.Class == b.Class && a.Opcode == b.Opcode && a.Defined == b.Defined
}
