package objfile

import (
	"debug/elf"
	"encoding/binary"
)

// pltEntry is the size of a stub in every PLT that x86-64 linkers write.
const pltEntry = 16

// pltSymbols names the stubs of the procedure linkage table after the
// functions they jump to, as name@plt. They have no symbols of their own; each
// jumps through a slot that a relocation fills.
func (f *File) pltSymbols() []Symbol {
	if f.elf.Machine != elf.EM_X86_64 {
		return nil
	}
	slots := make(map[uint64]string)
	dyn, err := f.elf.DynamicSymbols()
	if err != nil {
		return nil
	}
	for _, name := range []string{".rela.plt", ".rela.dyn"} {
		b, err := f.Section(name)
		if err != nil {
			continue
		}
		for ; len(b) >= 24; b = b[24:] {
			typ := binary.LittleEndian.Uint32(b[8:])
			sym := binary.LittleEndian.Uint32(b[12:])
			jumps := typ == uint32(elf.R_X86_64_JMP_SLOT) || typ == uint32(elf.R_X86_64_GLOB_DAT)
			if jumps && sym >= 1 && int(sym) <= len(dyn) {
				slots[binary.LittleEndian.Uint64(b)] = dyn[sym-1].Name
			}
		}
	}
	var out []Symbol
	for _, name := range []string{".plt", ".plt.sec", ".plt.got"} {
		b, err := f.Section(name)
		if err != nil {
			continue
		}
		at := f.Addr(name)
		size := uint64(pltEntry)
		if name == ".plt.got" {
			size = 8 // without CET: jmp and two bytes of padding
		}
		for off := uint64(0); off+size <= uint64(len(b)); off += size {
			if to, ok := jumpSlot(b[off:off+size], at+off); ok {
				if n := slots[to]; n != "" {
					out = append(out, Symbol{Name: n + "@plt", Value: at + off, Size: size, Func: true})
				}
			}
		}
	}
	return out
}

// jumpSlot finds "jmp *disp(%rip)" in a stub linked at addr, behind an endbr64
// or a bnd prefix if there is one, and returns the slot's address.
func jumpSlot(b []byte, addr uint64) (uint64, bool) {
	for i := 0; i <= 5 && i+6 <= len(b); i++ {
		if b[i] == 0xff && b[i+1] == 0x25 {
			disp := int32(binary.LittleEndian.Uint32(b[i+2:]))
			return addr + uint64(i) + 6 + uint64(int64(disp)), true
		}
	}
	return 0, false
}
