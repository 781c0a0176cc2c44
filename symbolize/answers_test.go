package symbolize

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/symbolize/dwinfo"
	"github.com/phpwhy/phpwhy/symbolize/objfile"
)

func someAnswers() answers {
	a := newAnswers()
	a.Funcs[0x1234] = []dwinfo.Func{
		{Name: "inner", Linkage: "_Zinner", File: "/src/a.c", FileRaw: "a.c", Line: 7, Inlined: true, External: true},
		{Name: "outer", File: "/src/a.c", FileRaw: "a.c", Line: 900, Low: 0x1200},
	}
	a.Funcs[0x99] = []dwinfo.Func{} // asked for, and there is none
	a.Symbols["1 2"] = objfile.Symbol{Name: "s", Value: 1 << 40, Size: 3, Func: true, Weak: true, Old: true}
	a.Symbols["3 4"] = objfile.Symbol{Object: true, Global: true, Dynamic: true}
	a.Structs["x"] = map[string]*dwinfo.Struct{
		"zval": {Name: "_zval", Size: 16, Members: map[string]dwinfo.Member{"u1.v.type": {Offset: 8, Size: 1, BitOffset: 2, BitSize: 3}}},
		"none": {Members: map[string]dwinfo.Member{}},
	}
	return a
}

func TestAnswersAreKeptAsTheyAre(t *testing.T) {
	want := someAnswers()
	got, ok := unpack(want.pack())
	if !ok {
		t.Fatal("they can't be read")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAnswersThatAreCutOffAreNone(t *testing.T) {
	a := someAnswers()
	b := a.pack()
	for n := range b {
		if _, ok := unpack(b[:n]); ok {
			t.Errorf("%d of %d bytes will do", n, len(b))
		}
	}
}

// FuzzAnswers: whatever stands there, reading it ends; what is read is written as
// something that reads the same.
func FuzzAnswers(f *testing.F) {
	a := someAnswers()
	f.Add(a.pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := unpack(b)
		if !ok {
			return
		}
		again, ok := unpack(a.pack())
		if !ok {
			t.Fatal("what was read can't be written")
		}
		if diff := cmp.Diff(a, again); diff != "" {
			t.Error(diff)
		}
	})
}
