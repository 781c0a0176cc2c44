package arm64

import (
	"encoding/binary"
	"errors"
	"testing"
)

func code(w uint32) []byte { return binary.LittleEndian.AppendUint32(nil, w) }

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name     string
		word     uint32
		emulated bool
		err      error
	}{
		{"bti c", 0xd503245f, true, nil},
		{"nop", 0xd503201f, true, nil},
		{"paciasp is left to a copy", 0xd503233f, false, nil},
		{"glibc mmap: tst x5, #0xfff", 0xf2402cbf, true, nil},
		{"stp x29, x30, [sp, #-32]!", 0xa9be7bfd, true, nil},
		{"sub sp, sp, #0x40", 0xd10103ff, true, nil},
		{"mov x8, #222", 0xd2801bc8, true, nil},
		{"cbz x0, .+8", 0xb4000040, true, nil},
		{"adrp x0, .+0x1000", 0xb0000000, true, nil},
		{"a load is left to a copy", 0xf9400000, false, nil},
		{"mrs x0, tpidr_el0 is left to a copy", 0xd53bd040, false, nil},
		{"a relative load can't move", 0x58000040, false, ErrNotMovable},
		{"an exclusive load can't move", 0xc85f7c20, false, ErrNotMovable},
		{"a call through a register can't move", 0xd63f0020, false, ErrNotMovable},
		{"a jump through a register can't move", 0xd61f0200, false, ErrNotMovable},
		{"a return can't move", 0xd65f03c0, false, ErrNotMovable},
		{"a system call can't move", 0xd4000001, false, ErrNotMovable},
		{"a breakpoint can't move", 0xd4200000, false, ErrNotMovable},
		{"an instruction that needs both registers can't move", 0x8b110210, true, ErrNotMovable},
		{"no instruction", 0x00000000, false, ErrUndecoded},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := Decode(code(c.word))
			if err == nil {
				_, err = in.Slot(0x1000)
			}
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if in != nil && in.Emulated() != c.emulated {
				t.Errorf("%s: emulated %t", in, in.Emulated())
			}
		})
	}
}

func TestEmulationLeavesRegistersWhenTheStackCannotBeWritten(t *testing.T) {
	failed := errors.New("no such page")
	for _, c := range []struct {
		name string
		sp   uint64
		word uint32
		want error
	}{
		{"stp", 0x1000, 0xa9be7bfd, failed},
		{"str", 0x1000, 0xf81f0ffe, failed},
		{"a stack pointer that is not aligned", 0x1008, 0xa9be7bfd, ErrStack},
	} {
		in, err := Decode(code(c.word))
		if err != nil {
			t.Fatal(err)
		}
		r := Regs{SP: c.sp, PC: 0x40}
		was := r
		if err := in.Emulate(&r, func(uint64, uint64) error { return failed }); !errors.Is(err, c.want) || r != was {
			t.Errorf("%s: %v, %+v", c.name, err, r)
		}
	}
}

// An indirect call leaves a mark that the function's first instruction clears;
// the processor would take the second for a wrong target else.
func TestEmulationClearsTheBranchType(t *testing.T) {
	in, err := Decode(code(0xd503245f))
	if err != nil {
		t.Fatal(err)
	}
	r := Regs{Pstate: 1<<31 | 2<<10}
	if err := in.Emulate(&r, nil); err != nil || r.Pstate != 1<<31 || r.PC != Len {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestOriginalOfEachPlaceInASlot(t *testing.T) {
	for _, c := range []struct {
		name string
		word uint32
		want []uint64
	}{
		{"copy", 0xd503245f, []uint64{0x1000, 0x1004, 0x1004}},
		{"adrp", 0xb0000000, []uint64{0x1000, 0x1004, 0x1004}},
		{"b .+8", 0x14000002, []uint64{0x1008, 0x1008}},
		{"bl .+8", 0x94000002, []uint64{0x1000, 0x1008, 0x1008}},
		{"cbz x0, .+8", 0xb4000040, []uint64{0x1000, 0x1004, 0x1004, 0x1008, 0x1008}},
	} {
		in, err := Decode(code(c.word))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range c.want {
			if got := in.Original(0x1000, uint64(i*Len)); got != want {
				t.Errorf("%s: instruction %d of the slot is %#x, want %#x", c.name, i, got, want)
			}
		}
	}
}

// The properties: no panic; what is decoded is four bytes, and either emulated,
// which moves the program counter by four unless it branches, or fits a slot.
func FuzzDecode(f *testing.F) {
	for _, w := range []uint32{0xd503245f, 0xf2402cbf, 0xa9be7bfd, 0xb4000040, 0x94000002, 0xb0000000} {
		f.Add(w)
	}
	f.Fuzz(func(t *testing.T, w uint32) {
		in, err := Decode(code(w))
		if err != nil {
			return
		}
		slot, err := in.Slot(0x1000)
		if err == nil && len(slot) > MaxSlot || err != nil && !errors.Is(err, ErrNotMovable) {
			t.Fatalf("%s: slot of %d bytes, %v", in, len(slot), err)
		}
		if !in.Emulated() {
			return
		}
		r := Regs{PC: 0x1000, SP: 0x8000}
		if err := in.Emulate(&r, func(uint64, uint64) error { return nil }); err != nil {
			t.Fatalf("%s: %v", in, err)
		}
		if in.kind < jump && r.PC != 0x1004 {
			t.Fatalf("%s goes on at %#x", in, r.PC)
		}
	})
}
