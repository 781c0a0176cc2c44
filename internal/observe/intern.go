package observe

import (
	"fmt"
	"hash/maphash"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// parameters are the arguments of the functions that are usually stopped at
// (mmap(2), mremap(2)).
var parameters = map[string][]string{
	"mmap":   {"addr", "len", "prot", "flags", "fd", "offset"},
	"mremap": {"addr", "old_len", "new_len", "flags"},
}

func arguments(symbol string, args []uint64) []stack.Arg {
	var out []stack.Arg
	for i, name := range parameters[symbol] {
		if i >= len(args) {
			break
		}
		v := fmt.Sprintf("%d", args[i])
		switch name {
		case "addr":
			v = remote.Addr(args[i]).String()
		case "fd", "prot", "flags":
			v = fmt.Sprintf("%d", int32(args[i]))
		}
		out = append(out, stack.Arg{Name: name, Value: v})
	}
	return out
}

// interner keeps one copy of equal stacks. Two stacks are equal when a person
// reading them sees no difference, wherever inside a line the program was.
type interner struct {
	seed   maphash.Seed
	byHash map[uint64][]int
	stacks []stack.Stack
}

func (in *interner) add(st stack.Stack) int {
	if in.byHash == nil {
		in.seed = maphash.MakeSeed()
		in.byHash = make(map[uint64][]int)
	}
	h := in.hash(&st)
	for _, i := range in.byHash[h] {
		if same(&in.stacks[i], &st) {
			// Values differ from stop to stop; the last ones say what it came to.
			for j := range st.Frames {
				in.stacks[i].Frames[j].Values = st.Frames[j].Values
			}
			return i
		}
	}
	in.stacks = append(in.stacks, st)
	in.byHash[h] = append(in.byHash[h], len(in.stacks)-1)
	return len(in.stacks) - 1
}

func (in *interner) hash(st *stack.Stack) uint64 {
	var h maphash.Hash
	h.SetSeed(in.seed)
	for i := range st.Frames {
		f := &st.Frames[i]
		_, _ = h.WriteString(f.Function)
		_, _ = h.WriteString(f.File)
		_ = h.WriteByte(byte(f.Line))
		_ = h.WriteByte(byte(f.Line >> 8))
	}
	return h.Sum64()
}

func same(a, b *stack.Stack) bool {
	if len(a.Frames) != len(b.Frames) || a.End != b.End || a.Error != b.Error {
		return false
	}
	for i := range a.Frames {
		x, y := &a.Frames[i], &b.Frames[i]
		if x.Kind != y.Kind || x.Function != y.Function || x.Class != y.Class || x.File != y.File || x.Line != y.Line ||
			x.Module != y.Module || x.Inlined != y.Inlined || x.Opcode != y.Opcode {
			return false
		}
		if x.Unresolved() && x.Offset != y.Offset && i > 0 {
			return false
		}
	}
	return true
}
