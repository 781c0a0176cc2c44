package triage

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

// table keeps each distinct stack once. Addresses inside a line, arguments and
// values do not tell stacks apart.
type table struct {
	all   []merged
	by    map[[16]byte]int
	bytes int
	h     hash.Hash
	b     []byte
}

// merged is one of them.
type merged struct {
	stack.Stack
	places []Place
	count  int
	php    bool // it has PHP code
}

func newTable() table { return table{by: make(map[[16]byte]int), h: sha256.New()} }

// stack returns the number of a stack, -1 when there is no room for another.
func (b *Builder) stack(s *stack.Stack, places []capture.Place) int {
	t := &b.stacks
	k := t.key(s, places)
	if i, ok := t.by[k]; ok {
		return i
	}
	size := 256
	for i := range s.Frames {
		f := &s.Frames[i]
		size += 320 + len(f.Function) + len(f.File) + len(f.Raw) + len(f.Class)
	}
	if len(t.all) >= MaxStacks || t.bytes+size > MaxStackBytes {
		b.lost.stacks++
		return -1
	}
	t.bytes += size
	m := merged{Stack: stack.Stack{Frames: append([]stack.Frame{}, s.Frames...), End: s.End, Error: s.Error}, places: make([]Place, len(places))}
	for i := range m.Frames {
		m.Frames[i].Values = nil
		m.php = m.php || m.Frames[i].Kind == stack.PHP && !m.Frames[i].Internal
	}
	for i, p := range places {
		m.places[i] = Place(p)
	}
	t.by[k] = len(t.all)
	t.all = append(t.all, m)
	return len(t.all) - 1
}

func (t *table) key(s *stack.Stack, places []capture.Place) (k [16]byte) {
	t.h.Reset()
	t.text(string(s.End), s.Error)
	for i := range s.Frames {
		f := &s.Frames[i]
		t.text(string(f.Kind), f.Function, f.Class, f.File, f.Module)
		t.b = binary.AppendVarint(t.b, int64(f.Line))
		// Where nothing names the function, the address is all there is.
		if f.Unresolved() {
			at := uint64(f.PC)
			if i < len(places) && places[i].Binary != capture.NoBinary {
				at = places[i].Addr
			}
			t.b = binary.AppendUvarint(t.b, at)
		}
		t.h.Write(t.b)
		t.b = t.b[:0]
	}
	copy(k[:], t.h.Sum(nil))
	return k
}

func (t *table) text(ss ...string) {
	for _, s := range ss {
		t.b = binary.AppendUvarint(t.b, uint64(len(s)))
		t.b = append(t.b, s...)
	}
}

// siteOf is the innermost user code of a stack, and the internal function that it
// is in.
func siteOf(fs []stack.Frame) (s Site, doing string) {
	for i := range fs {
		f := &fs[i]
		if f.Kind != stack.PHP {
			continue
		}
		if f.Internal {
			if doing == "" {
				doing = f.QualifiedName()
			}
			continue
		}
		return Site{Function: f.Function, Class: f.Class, File: f.File, Line: f.Line}, doing
	}
	return s, doing
}
