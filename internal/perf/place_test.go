package perf

import (
	"testing"
)

func TestPlaceIsWhereTheKernelNeedNotStep(t *testing.T) {
	for _, tt := range []struct {
		name string
		code string
		want Place
	}{
		{"push at the entry", "\x41\x57\xc3", Place{0, true}},
		{"endbr64, then push", "\xf3\x0f\x1e\xfa\x55\xc3", Place{4, true}},
		{"glibc's mremap: sub, stores, cmp, ja", "\x48\x83\xec\x58\x4c\x89\x44\x24\x40\x31\xc0\x83\xf9\x07\x77\x00\xc3", Place{14, true}},
		{"an argument changes on the way", "\x89\xf9\x55\xc3", Place{}},                           // mov %edi,%ecx
		{"a part of an argument changes", "\xb1\x01\x55\xc3", Place{}},                            // mov $1,%cl
		{"a syscall on the way", "\xb8\x27\x00\x00\x00\x0f\x05\xc3", Place{}},                     // getpid
		{"a loop back behind the entry", "\x31\xc0\x55\xeb\xfd", Place{}},                         // jmp to the push
		{"a loop back to the entry is a call of its own", "\x31\xc0\x55\xeb\xfb", Place{2, true}}, // jmp to the entry
		{"nothing emulated for too long", string(make31(40)) + "\x55", Place{}},                   // xor %eax,%eax
		{"bytes that are no code", "\x06\x55", Place{}},                                           // invalid in 64 bits
		{"no bytes", "", Place{}},
	} {
		if got := Find([]byte(tt.code)); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func make31(n int) (b []byte) {
	for range n {
		b = append(b, 0x31, 0xc0)
	}
	return b
}

func TestPlacesInThisMachinesLibc(t *testing.T) {
	for _, name := range []string{"mmap", "mremap", "getenv"} {
		_, code := libc(t, name)
		t.Logf("%s: %+v", name, Find(code))
		if !Find(code).Emulated {
			t.Errorf("%s has to be stepped", name)
		}
	}
}

func FuzzFind(f *testing.F) {
	f.Add([]byte("\x48\x83\xec\x58\x4c\x89\x44\x24\x40\x31\xc0\x83\xf9\x07\x77\x00\xc3"))
	f.Fuzz(func(t *testing.T, code []byte) {
		p := Find(code)
		if p.Offset >= maxSlide || p.Offset > 0 && (p.Offset >= uint64(len(code)) || !p.Emulated) {
			t.Errorf("%+v of %d bytes", p, len(code))
		}
	})
}
