package x86

import (
	"errors"
	"testing"
)

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name     string
		code     []byte
		n        int
		emulated bool
		movable  bool
	}{
		{"endbr64", []byte{0xf3, 0x0f, 0x1e, 0xfa}, 4, true, true},
		{"glibc mremap: sub $0x58,%rsp", []byte{0x48, 0x83, 0xec, 0x58}, 4, true, true},
		{"glibc mmap: mov %ecx,%r10d", []byte{0x41, 0x89, 0xca}, 3, true, true},
		{"mov %rcx,%r10", []byte{0x49, 0x89, 0xca}, 3, true, true},
		{"mov $12,%eax", []byte{0xb8, 12, 0, 0, 0}, 5, true, true},
		{"movabs", []byte{0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, 10, true, true},
		{"test $0xfff,%r9d", []byte{0x41, 0xf7, 0xc1, 0xff, 0x0f, 0, 0}, 7, true, true},
		{"push %r12", []byte{0x41, 0x54}, 2, true, true},
		{"push %rbp", []byte{0x55}, 1, true, true},
		{"lea 8(%rsp),%r10", []byte{0x4c, 0x8d, 0x54, 0x24, 0x08}, 5, true, true},
		{"nop", []byte{0x90}, 1, true, true},
		{"nopw", []byte{0x66, 0x0f, 0x1f, 0x44, 0, 0}, 6, true, true},
		{"a store is left to a copy", []byte{0x4c, 0x89, 0x44, 0x24, 0x40}, 5, false, true},
		{"an 8-bit operation is left to a copy", []byte{0x30, 0xc0}, 2, false, true},
		{"a relative load can't move", []byte{0x48, 0x8b, 0x05, 1, 0, 0, 0}, 7, false, false},
		{"a relative lea can't move", []byte{0x48, 0x8d, 0x05, 1, 0, 0, 0}, 7, false, false},
		{"a jump can't move", []byte{0xe9, 1, 0, 0, 0}, 5, false, false},
		{"a conditional jump can't move", []byte{0x74, 2}, 2, false, false},
		{"a call can't move", []byte{0xe8, 1, 0, 0, 0}, 5, false, false},
		{"a return can't move", []byte{0xc3}, 1, false, false},
		{"a system call can't move", []byte{0x0f, 0x05}, 2, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := Decode(append(c.code, 0x90, 0x90, 0x90))
			if err != nil {
				t.Fatal(err)
			}
			_, err = in.Slot(0x1000)
			if in.Len != c.n || in.Emulated() != c.emulated || (err == nil) != c.movable {
				t.Errorf("%s: length %d, emulated %t, slot %v", in, in.Len, in.Emulated(), err)
			}
			if err != nil && !errors.Is(err, ErrNotMovable) {
				t.Error(err)
			}
		})
	}
}

func TestDecodeRefusesGarbage(t *testing.T) {
	for _, code := range [][]byte{nil, {0x48}, {0x06}, {0x0f, 0xff}, {0x66, 0x66, 0x66, 0x66}} {
		if in, err := Decode(code); !errors.Is(err, ErrUndecoded) {
			t.Errorf("% x: %v, %v", code, in, err)
		}
	}
}

// The property: no panic, and a length that lies within the bytes given.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0x48, 0x83, 0xec, 0x58})
	f.Add([]byte{0xf3, 0x0f, 0x1e, 0xfa})
	f.Add([]byte{0x4c, 0x8d, 0x54, 0x24, 0x08})
	f.Fuzz(func(t *testing.T, code []byte) {
		in, err := Decode(code)
		if err != nil {
			return
		}
		if in.Len < 1 || in.Len > len(code) || in.Len > MaxLen {
			t.Fatalf("length %d of %d bytes", in.Len, len(code))
		}
		if _, err := in.Slot(1); in.Emulated() {
			if err != nil {
				t.Fatal(err)
			}
			var r Regs
			if err := in.Emulate(&r, func(uint64, uint64) error { return nil }); err != nil || r.Rip != uint64(in.Len) {
				t.Fatalf("%v, rip %#x", err, r.Rip)
			}
		}
	})
}
