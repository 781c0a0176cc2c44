package remote

import (
	"errors"
	"math"
	"testing"
)

// sparse is a target memory that consists of a few islands.
type sparse map[Addr][]byte

func (s sparse) ReadMemory(p []byte, at Addr) (int, error) {
	for start, b := range s {
		if d, ok := at.Distance(start); ok && d < uint64(len(b)) {
			n := copy(p, b[d:])
			if n == len(p) {
				return n, nil
			}
			return n, &ReadError{At: at, Want: len(p), Got: n, Err: ErrUnmapped}
		}
	}
	return 0, &ReadError{At: at, Want: len(p), Err: ErrUnmapped}
}

func TestAddrArithmeticRefusesToWrap(t *testing.T) {
	top := Addr(math.MaxUint64)
	for _, tt := range []struct {
		name string
		ok   bool
		do   func() (Addr, bool)
		want Addr
	}{
		{"add inside", true, func() (Addr, bool) { return Addr(1).Add(2) }, 3},
		{"add over the top", false, func() (Addr, bool) { return top.Add(1) }, 0},
		{"offset down", true, func() (Addr, bool) { return Addr(8).Offset(-8) }, 0},
		{"offset below zero", false, func() (Addr, bool) { return Addr(7).Offset(-8) }, 0},
		{"the most negative offset", false, func() (Addr, bool) { return Addr(7).Offset(math.MinInt64) }, 0},
		{"the most negative offset from high up", true, func() (Addr, bool) { return top.Offset(math.MinInt64) }, math.MaxInt64},
	} {
		got, ok := tt.do()
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s: got %v, %v; want %v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestCString(t *testing.T) {
	page := make([]byte, 8)
	copy(page, "ab\x00cd")
	mem := sparse{0x1000: page, 0x1ffc: []byte("wxyz")}
	for _, tt := range []struct {
		name  string
		at    Addr
		limit int
		want  string
		err   error
	}{
		{"ends at its NUL", 0x1000, 100, "ab", nil},
		{"may be empty", 0x1002, 100, "", nil},
		{"is cut at the limit", 0x1ffc, 3, "wxy", ErrUnterminated},
		{"keeps what was read before unmapped memory", 0x1ffc, 100, "wxyz", ErrUnmapped},
		{"fails at a wild pointer", 0xdead0000, 100, "", ErrUnmapped},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := CString(mem, tt.at, tt.limit)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %q, %v; want %q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestAFailedReadIsNeverAZero(t *testing.T) {
	mem := sparse{0x1000: {1, 2, 3, 4}}
	_, err := Uint64(mem, 0x1000)
	var re *ReadError
	if !errors.As(err, &re) || re.Got != 4 || re.Want != 8 {
		t.Fatalf("a short read gave %v", err)
	}
	if v, err := Uint32(mem, 0x1000); err != nil || v != 0x04030201 {
		t.Fatalf("got %#x, %v", v, err)
	}
	silent := ReaderFunc(func([]byte, Addr) (int, error) { return 0, nil })
	if _, err := Uint8(silent, 0); !errors.Is(err, ErrUnmapped) {
		t.Fatalf("a reader that fails silently gave %v", err)
	}
}

func TestMappingsFind(t *testing.T) {
	ms := Mappings{{Start: 0x1000, End: 0x2000, Path: "a"}, {Start: 0x3000, End: 0x4000, Path: "b"}}
	for at, want := range map[Addr]string{0xfff: "", 0x1000: "a", 0x1fff: "a", 0x2000: "", 0x3800: "b", 0x4000: ""} {
		got := ""
		if m := ms.Find(at); m != nil {
			got = m.Path
		}
		if got != want {
			t.Errorf("%v is in %q, want %q", at, got, want)
		}
	}
}

func TestRegsTellUnknownFromZero(t *testing.T) {
	r := Regs{Arch: AMD64}
	if _, ok := r.Get(R15); ok {
		t.Error("a register never set is known")
	}
	r.Set(R15, 0)
	if v, ok := r.Get(R15); !ok || v != 0 {
		t.Error("a register set to zero is unknown")
	}
	r.Forget(R15)
	if _, ok := r.Get(R15); ok {
		t.Error("a forgotten register is known")
	}
	r.Set(RDX, 7)
	if v, _ := r.Arg(2); v != 7 {
		t.Errorf("the third argument is %d, want rdx", v)
	}
	if _, ok := r.Arg(6); ok {
		t.Error("there is no seventh register argument")
	}
	for _, n := range []int{-1, MaxRegs} {
		r.Set(n, 1)
		if _, ok := r.Get(n); ok {
			t.Errorf("register %d exists", n)
		}
	}
}
