package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math"
)

const (
	// maxLoaded bounds a file that is put together from memory, in bytes.
	maxLoaded = 256 << 20
	// maxSparse bounds how much larger the file may be than what is mapped of
	// it; linkers leave hardly any gap.
	maxSparse = 4
	// maxDynamic bounds the entries of PT_DYNAMIC; a library has some thirty.
	maxDynamic = 1024
	// maxChain bounds the walk along one bucket of the symbol hash table.
	maxChain = 1 << 20
)

// Piece is a stretch of a file as a process has it in memory.
type Piece struct {
	At     uint64 // runtime address
	Offset uint64 // in the file
	Data   []byte
	Write  bool // the process may have changed it
}

// FromLoaded puts a File together from what a process has mapped of it, for
// when the file itself is gone or out of reach: its code, call-frame
// information, build-id and dynamic symbols. What is only in the file, such as
// .symtab, DWARF and the section headers, is missing. Sections that the program
// headers and the dynamic table name are found under their usual names;
// .rodata is the whole read-only segment behind the code.
func FromLoaded(name string, pieces []Piece) (*File, error) {
	l := loaded{name: name}
	if err := l.assemble(pieces); err != nil {
		return nil, err
	}
	l.segments()
	l.dynamic()
	b := l.finish()
	return Open(name, bytes.NewReader(b), int64(len(b)), nil)
}

// loaded is a file being put together.
type loaded struct {
	name     string
	b        []byte
	bias     uint64 // runtime minus link-time address
	progs    []*elf.Prog
	sections []elf.Section64
	names    []byte
}

func (l *loaded) malformed(format string, args ...any) error {
	return fmt.Errorf("%s in memory: %w: %s", l.name, ErrMalformed, fmt.Sprintf(format, args...))
}

func (l *loaded) assemble(pieces []Piece) error {
	size, have := uint64(0), uint64(0)
	for _, p := range pieces {
		if p.Offset > maxLoaded || uint64(len(p.Data)) > maxLoaded-p.Offset {
			return l.malformed("%d bytes at offset %#x", len(p.Data), p.Offset)
		}
		size = max(size, p.Offset+uint64(len(p.Data)))
		have += uint64(len(p.Data))
	}
	if size > maxSparse*have {
		return l.malformed("%d bytes of %d", have, size)
	}
	l.b = make([]byte, size)
	// Two segments may share a page of the file. The one that the process can't
	// write still has the file's bytes.
	for _, write := range []bool{true, false} {
		for _, p := range pieces {
			if p.Write == write {
				copy(l.b[p.Offset:], p.Data)
			}
		}
	}
	const header = 64
	if len(l.b) < header {
		return l.malformed("its first page is not mapped")
	}
	clear(l.b[0x28:0x30]) // e_shoff: the section headers are not in memory
	clear(l.b[0x3c:0x40]) // e_shnum, e_shstrndx
	f, err := elf.NewFile(bytes.NewReader(l.b))
	if err != nil {
		return l.malformed("%v", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return l.malformed("only 64-bit little-endian files are supported, not %v %v", f.Class, f.Data)
	}
	l.progs = f.Progs
	for _, p := range pieces {
		for _, s := range l.progs {
			// Mappings begin on pages, segments need not.
			if s.Type == elf.PT_LOAD && p.Offset <= s.Off && s.Off < p.Offset+uint64(len(p.Data)) {
				l.bias = p.At + (s.Off - p.Offset) - s.Vaddr
				return nil
			}
		}
	}
	return l.malformed("no segment of it is mapped")
}

// offset is where a link-time address is in the file, and how many bytes there
// are from there to the segment's end.
func (l *loaded) offset(vaddr uint64) (off, rest uint64, ok bool) {
	for _, p := range l.progs {
		if p.Type == elf.PT_LOAD && vaddr >= p.Vaddr && vaddr-p.Vaddr < p.Filesz {
			in := vaddr - p.Vaddr
			if off = p.Off + in; off >= p.Off && off < uint64(len(l.b)) {
				return off, min(p.Filesz-in, uint64(len(l.b))-off), true
			}
		}
	}
	return 0, 0, false
}

// add describes a section of at most size bytes at a link-time address.
func (l *loaded) add(name string, typ elf.SectionType, vaddr, size uint64) {
	off, rest, ok := l.offset(vaddr)
	if !ok || size == 0 {
		return
	}
	l.sections = append(l.sections, elf.Section64{
		Name: l.nameOf(name), Type: uint32(typ), Addr: vaddr, Off: off, Size: min(size, rest),
	})
}

func (l *loaded) nameOf(s string) uint32 {
	if len(l.names) == 0 {
		l.names = append(l.names, 0)
	}
	at := len(l.names)
	l.names = append(append(l.names, s...), 0)
	return uint32(at)
}

// segments finds the sections that program headers point at.
func (l *loaded) segments() {
	code := false
	for _, p := range l.progs {
		switch p.Type {
		case elf.PT_LOAD:
			if exec := p.Flags&elf.PF_X != 0; code && !exec && p.Flags&elf.PF_W == 0 {
				l.add(".rodata", elf.SHT_PROGBITS, p.Vaddr, p.Filesz)
				code = false
			} else if exec {
				code = true
			}
		case elf.PT_GNU_EH_FRAME:
			l.add(".eh_frame_hdr", elf.SHT_PROGBITS, p.Vaddr, p.Filesz)
			l.frames(p)
		case elf.PT_NOTE:
			l.notes(p)
		}
	}
}

// frames finds .eh_frame by the pointer in .eh_frame_hdr (Linux Standard Base,
// "The .eh_frame_hdr section"), which linkers write as a signed 32-bit distance
// from itself. Its size is not told; a zero ends it.
func (l *loaded) frames(hdr *elf.Prog) {
	const pcrelSdata4 = 0x1b
	off, rest, ok := l.offset(hdr.Vaddr)
	if !ok || rest < 8 || l.b[off] != 1 || l.b[off+1] != pcrelSdata4 {
		return
	}
	d := int32(binary.LittleEndian.Uint32(l.b[off+4:]))
	l.add(".eh_frame", elf.SHT_PROGBITS, hdr.Vaddr+4+uint64(int64(d)), math.MaxUint64)
}

// notes finds the build-id among the notes of a segment.
func (l *loaded) notes(p *elf.Prog) {
	off, rest, ok := l.offset(p.Vaddr)
	if !ok {
		return
	}
	b := l.b[off : off+min(rest, p.Filesz)]
	for at := uint64(0); at+12 <= uint64(len(b)); {
		namesz, descsz := uint64(binary.LittleEndian.Uint32(b[at:])), uint64(binary.LittleEndian.Uint32(b[at+4:]))
		size := 12 + (namesz+3)&^3 + (descsz+3)&^3
		if size > uint64(len(b))-at {
			return
		}
		const buildID = 3 // NT_GNU_BUILD_ID
		if binary.LittleEndian.Uint32(b[at+8:]) == buildID && namesz == 4 && string(b[at+12:at+16]) == "GNU\x00" {
			l.add(".note.gnu.build-id", elf.SHT_NOTE, p.Vaddr+at, size)
			return
		}
		at += size
	}
}

// dynamic finds the symbol tables.
func (l *loaded) dynamic() {
	tags := l.tags()
	// glibc turns the table's addresses into runtime ones, musl does not.
	at := func(tag elf.DynTag) uint64 {
		v := tags[tag]
		if _, _, linked := l.offset(v); !linked {
			v -= l.bias
		}
		return v
	}
	n := l.symbols(at(elf.DT_GNU_HASH), tags[elf.DT_GNU_HASH] != 0, at(elf.DT_HASH), tags[elf.DT_HASH] != 0)
	if n == 0 || tags[elf.DT_SYMTAB] == 0 || tags[elf.DT_STRTAB] == 0 {
		return
	}
	before := len(l.sections)
	if l.add(".dynstr", elf.SHT_STRTAB, at(elf.DT_STRTAB), tags[elf.DT_STRSZ]); len(l.sections) == before {
		return
	}
	strings := uint32(len(l.sections)) // the null section comes first
	link := func(name string, typ elf.SectionType, tag elf.DynTag, size uint64, info uint64) {
		if tags[tag] == 0 {
			return
		}
		had := len(l.sections)
		if l.add(name, typ, at(tag), size); len(l.sections) > had {
			s := &l.sections[had]
			s.Link, s.Info = strings, uint32(info)
		}
	}
	link(".dynsym", elf.SHT_DYNSYM, elf.DT_SYMTAB, n*elf.Sym64Size, 1)
	link(".gnu.version", elf.SHT_GNU_VERSYM, elf.DT_VERSYM, n*2, 0)
	link(".gnu.version_d", elf.SHT_GNU_VERDEF, elf.DT_VERDEF, math.MaxUint64, tags[elf.DT_VERDEFNUM])
	link(".gnu.version_r", elf.SHT_GNU_VERNEED, elf.DT_VERNEED, math.MaxUint64, tags[elf.DT_VERNEEDNUM])
}

func (l *loaded) tags() map[elf.DynTag]uint64 {
	tags := make(map[elf.DynTag]uint64)
	for _, p := range l.progs {
		if p.Type != elf.PT_DYNAMIC {
			continue
		}
		off, rest, ok := l.offset(p.Vaddr)
		if !ok {
			continue
		}
		b := l.b[off : off+min(rest, p.Filesz)]
		for i := 0; i < maxDynamic && len(b) >= 16; i, b = i+1, b[16:] {
			tag := elf.DynTag(binary.LittleEndian.Uint64(b))
			if tag == elf.DT_NULL {
				break
			}
			tags[tag] = binary.LittleEndian.Uint64(b[8:])
		}
	}
	return tags
}

// symbols counts .dynsym's entries, which only the hash tables know.
func (l *loaded) symbols(gnu uint64, hasGNU bool, sysv uint64, hasSysV bool) uint64 {
	word := func(vaddr uint64) (uint64, bool) {
		off, rest, ok := l.offset(vaddr)
		if !ok || rest < 4 {
			return 0, false
		}
		return uint64(binary.LittleEndian.Uint32(l.b[off:])), true
	}
	if hasSysV {
		if n, ok := word(sysv + 4); ok { // nchain
			return n
		}
	}
	if !hasGNU {
		return 0
	}
	buckets, ok1 := word(gnu)
	first, ok2 := word(gnu + 4)
	bloom, ok3 := word(gnu + 8)
	if !ok1 || !ok2 || !ok3 {
		return 0
	}
	table := gnu + 16 + 8*bloom
	last := uint64(0)
	for i := range buckets {
		v, ok := word(table + 4*i)
		if !ok {
			return 0
		}
		last = max(last, v)
	}
	if last < first { // nothing is exported
		return first
	}
	chain := table + 4*buckets
	for range maxChain {
		h, ok := word(chain + 4*(last-first))
		if !ok {
			return 0
		}
		last++
		if h&1 != 0 { // the end of the bucket
			return last
		}
	}
	return 0
}

// finish appends the section headers.
func (l *loaded) finish() []byte {
	strtab := elf.Section64{Name: l.nameOf(".shstrtab"), Type: uint32(elf.SHT_STRTAB)}
	strtab.Off, strtab.Size = uint64(len(l.b)), uint64(len(l.names))
	out := append(l.b, l.names...)
	out = append(out, make([]byte, -len(out)&7)...)
	headers := append(append([]elf.Section64{{}}, l.sections...), strtab)
	binary.LittleEndian.PutUint64(out[0x28:], uint64(len(out)))
	binary.LittleEndian.PutUint16(out[0x3a:], 64) // e_shentsize
	binary.LittleEndian.PutUint16(out[0x3c:], uint16(len(headers)))
	binary.LittleEndian.PutUint16(out[0x3e:], uint16(len(headers)-1))
	var w bytes.Buffer
	for _, h := range headers {
		// Sizes of entries: debug/elf wants none but for symbols.
		if elf.SectionType(h.Type) == elf.SHT_DYNSYM {
			h.Entsize = elf.Sym64Size
		}
		_ = binary.Write(&w, binary.LittleEndian, h) // fixed size, to memory: it can't fail
	}
	return append(out, w.Bytes()...)
}
