package zend

import (
	"errors"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func TestEvaluatedCodeBearsTheNameOfItsPlace(t *testing.T) {
	const a, b = "/x.php(3) : eval()'d code", "/x.php(4) : eval()'d code"
	main := Frame{Function: "{main}", File: "/x.php", Line: 3}
	for _, tt := range []struct {
		name   string
		frames []Frame
		want   bool
	}{
		{"no eval", []Frame{{Function: "f", File: "/y.php", Line: 9}, main}, true},
		{"eval in its caller's line", []Frame{{Function: "eval", File: a, Line: 1, needsIncluder: true}, main}, true},
		{"eval with another's name", []Frame{{Function: "eval", File: b, Line: 1, needsIncluder: true}, main}, false},
		{"eval whose name was overwritten", []Frame{{Function: "eval", File: "/x.php(3) : eval()'\xffJW0", Line: 1, needsIncluder: true}, main}, false},
		{"a function of that name", []Frame{{Function: "eval", File: "/x.php", Line: 1}, main}, true},
		{"eval that nobody called", []Frame{{Function: "eval", File: a, Line: 1, needsIncluder: true}}, false},
		{"a function that an eval has defined stays", []Frame{{Function: "f", File: b, Line: 1}, main}, true},
		{"a closure of an eval that runs", []Frame{{Function: "{closure}", File: a, Line: 1, closure: true}, {Function: "eval", File: a, Line: 1, needsIncluder: true}, main}, true},
		{"a closure of an eval that has ended", []Frame{{Function: "{closure}", File: a, Line: 1, closure: true}, main}, false},
		{"eval in an eval", []Frame{{Function: "eval", File: a + "(7) : eval()'d code", Line: 1, needsIncluder: true}, {Function: "eval", File: a, Line: 7, needsIncluder: true}, main}, true},
	} {
		if got := evalsAgree(tt.frames); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// flat is a process whose memory has the same byte everywhere.
type flat byte

func (f *flat) ReadMemory(p []byte, _ remote.Addr) (int, error) {
	for i := range p {
		p[i] = byte(*f)
	}
	return len(p), nil
}

func (f *flat) ReadAll(regions []remote.Region, into []byte) bool {
	_, _ = f.ReadMemory(into, 0)
	return true
}

func TestNamesOfAFunctionThatHasGoneAreRefused(t *testing.T) {
	l, err := builtin("8.2", false, false)
	if err != nil {
		t.Fatal(err)
	}
	rt := &Runtime{Layout: l}
	body := make([]byte, l.FuncSize)
	body[l.FuncType] = l.TypeUser
	links := []Link{{At: 0x1000, Func: 0x2000, Body: body}}
	mem := flat(0)
	c := rt.Any().Copied(links, 0, &mem)
	k := c.Check(links)
	if err := k.Holds(&mem); !errors.Is(err, ErrGone) {
		t.Errorf("another kind of function is there: %v", err)
	}
	body[l.FuncType] = 0
	if err := rt.Any().Copied(links, 0, &mem).Check(links).Holds(&mem); err != nil {
		t.Errorf("nothing has changed: %v", err)
	}
	var b [8]byte
	if _, err := c.ReadMemory(b[:], 0x9000); err != nil {
		t.Fatal(err)
	}
	k = c.Check(nil)
	if err := k.Holds(&mem); err != nil {
		t.Errorf("what was read is still there: %v", err)
	}
	mem = 1
	if err := k.Holds(&mem); !errors.Is(err, ErrGone) {
		t.Errorf("what was read has changed: %v", err)
	}
}

// FuzzCopied: no chain makes a walk endless or panic.
func FuzzCopied(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, uint64(0x1000), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint64, fill uint8) {
		l, err := builtin("8.2", false, false)
		if err != nil {
			t.Fatal(err)
		}
		rt := &Runtime{Layout: l}
		var links []Link
		for i := 0; i+4 <= len(b); i += 4 {
			k := Link{At: remote.Addr(at + 8*uint64(b[i])), Func: remote.Addr(at + 8*uint64(b[i+1])), This: remote.Addr(b[i+2]), CallInfo: uint32(b[i+3])}
			if b[i+2]%3 > 0 {
				k.Body = make([]byte, l.FuncSize)
				copy(k.Body, b[i:])
			}
			links = append(links, k)
		}
		mem := flat(fill)
		c := rt.Any().Copied(links, remote.Addr(at), &mem)
		s := c.Walk()
		if len(s.Frames) > MaxFrames {
			t.Fatalf("%d frames", len(s.Frames))
		}
		_ = c.Check(links).Holds(&mem)
	})
}
