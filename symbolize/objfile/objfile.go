// Package objfile opens ELF files: sections, symbols, build-id, and the
// separate file that holds a stripped program's debug information.
//
// Contract: a file may be truncated, rewritten while it is read, or made to
// lie; that is an error that names the file and the section, never a panic.
// Bytes are read with pread into memory of our own rather than mapped: a
// mapping of a file that shrinks would end the process with SIGBUS.
//
// Non-goal: DWARF and call-frame information are decoded elsewhere.
package objfile

import (
	"cmp"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// ErrMalformed says that an ELF file breaks its format.
var ErrMalformed = errors.New("malformed ELF file")

// ErrNoSection says that a file has no section of a name.
var ErrNoSection = errors.New("no such section")

const (
	// maxSection bounds one section in memory, in bytes, after decompression.
	maxSection = 1 << 30
	// maxInflate bounds how much larger than the file a compressed section
	// may claim to be; zlib reaches 1032:1 at best, debug sections about 8:1.
	maxInflate = 64
)

// File is an open ELF file. It is safe for concurrent use.
type File struct {
	Name string // for messages
	r    io.ReaderAt
	c    io.Closer
	size int64
	id   string
	elf  *elf.File

	mu   sync.Mutex
	data map[string]*section         // sections read whole
	kept func(section string) []byte // see KeepInflated

	symOnce sync.Once
	syms    []Symbol
	symErr  error

	dynOnce sync.Once
	dyn     map[string]Symbol
}

// section is one section's contents, read once and outside of any lock: big
// ones are wanted from several goroutines at a time.
type section struct {
	once sync.Once
	b    []byte
	err  error

	begin    sync.Once
	inflated atomic.Pointer[inflating] // nil for what is not compressed with zlib
	beginErr error
}

// Open reads the headers of an ELF file of size bytes. On success the file
// closes c when it is closed.
func Open(name string, r io.ReaderAt, size int64, c io.Closer) (*File, error) {
	f, err := elf.NewFile(io.NewSectionReader(r, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %v", name, ErrMalformed, err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("%s: %w: only 64-bit little-endian files are supported, not %v %v", name, ErrMalformed, f.Class, f.Data)
	}
	return &File{Name: name, r: r, c: c, size: size, elf: f, data: make(map[string]*section)}, nil
}

// Close closes the underlying file.
func (f *File) Close() error {
	if f.c == nil {
		return nil
	}
	return f.c.Close()
}

// Machine is the processor the file is for.
func (f *File) Machine() elf.Machine { return f.elf.Machine }

// Entry is the link-time address of the first instruction.
func (f *File) Entry() uint64 { return f.elf.Entry }

// Load is one PT_LOAD segment.
type Load struct {
	Offset, Filesz uint64
	Vaddr, Memsz   uint64
	Exec           bool
}

// Loads lists the PT_LOAD segments.
func (f *File) Loads() []Load {
	var out []Load
	for _, p := range f.elf.Progs {
		if p.Type == elf.PT_LOAD {
			out = append(out, Load{p.Off, p.Filesz, p.Vaddr, p.Memsz, p.Flags&elf.PF_X != 0})
		}
	}
	return out
}

// raw finds a section's header.
func (f *File) raw(name string) *elf.Section {
	for _, s := range f.elf.Sections {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Addr is the link-time address of a section, 0 when there is none.
func (f *File) Addr(name string) uint64 {
	if s := f.raw(name); s != nil {
		return s.Addr
	}
	return 0
}

// Has reports whether the file has a section of that name with contents.
func (f *File) Has(name string) bool {
	s := f.raw(name)
	return s != nil && s.Type != elf.SHT_NOBITS && s.Size > 0
}

// compressed reports whether a section must be read whole to be read at all.
func compressed(s *elf.Section) bool { return s.Flags&elf.SHF_COMPRESSED != 0 }

// Size is a section's uncompressed size in bytes.
func (f *File) Size(name string) (uint64, error) {
	s := f.raw(name)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return 0, fmt.Errorf("%s: %w: %s", f.Name, ErrNoSection, name)
	}
	if err := f.check(s); err != nil {
		return 0, err
	}
	return s.Size, nil
}

// check refuses sections whose size is a lie.
func (f *File) check(s *elf.Section) error {
	switch {
	case s.Offset > uint64(f.size) || s.FileSize > uint64(f.size)-s.Offset:
		return fmt.Errorf("%s: %w: section %s reaches beyond the file", f.Name, ErrMalformed, s.Name)
	case s.Size > maxSection, compressed(s) && s.Size > maxInflate*(s.FileSize+1024):
		return fmt.Errorf("%s: %w: section %s claims %d bytes", f.Name, ErrMalformed, s.Name, s.Size)
	}
	return nil
}

// Section returns a whole section, uncompressed; nil without an error when
// there is none. The bytes are kept and must not be changed.
func (f *File) Section(name string) ([]byte, error) {
	s := f.raw(name)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	c := f.slot(name)
	c.once.Do(func() {
		if c.err = f.check(s); c.err != nil {
			return
		}
		if c.b, c.err = f.contents(s, c); c.err != nil {
			c.b, c.err = nil, fmt.Errorf("%s: section %s: %w: %v", f.Name, name, ErrMalformed, c.err)
		}
	})
	return c.b, c.err
}

func (f *File) slot(name string) *section {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.data[name]
	if c == nil {
		c = &section{}
		f.data[name] = c
	}
	return c
}

// ReadAddr reads the file's bytes that are loaded at a link-time address.
func (f *File) ReadAddr(b []byte, addr uint64) error {
	for _, p := range f.elf.Progs {
		if p.Type != elf.PT_LOAD || addr < p.Vaddr || addr-p.Vaddr >= p.Filesz {
			continue
		}
		if uint64(len(b)) > p.Filesz-(addr-p.Vaddr) {
			return fmt.Errorf("%s: %w: %d bytes at %#x", f.Name, ErrMalformed, len(b), addr)
		}
		if _, err := p.ReadAt(b, int64(addr-p.Vaddr)); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
		return nil
	}
	return fmt.Errorf("%s: %w: nothing is loaded at %#x", f.Name, ErrMalformed, addr)
}

// BuildID is the GNU build-id in hexadecimal, "" when there is none.
func (f *File) BuildID() string {
	b, err := f.Section(".note.gnu.build-id")
	if err != nil || len(b) < 16 {
		return ""
	}
	o := f.elf.ByteOrder
	namesz, descsz := o.Uint32(b), o.Uint32(b[4:])
	if o.Uint32(b[8:]) != 3 /* NT_GNU_BUILD_ID */ || namesz != 4 || string(b[12:16]) != "GNU\x00" ||
		descsz < 2 || descsz > 64 || uint64(len(b)) < 16+uint64(descsz) {
		return ""
	}
	return hex.EncodeToString(b[16 : 16+descsz])
}

// Symbol is a named address. Value is a link-time address.
type Symbol struct {
	Name    string
	Value   uint64
	Size    uint64
	Func    bool // STT_FUNC or STT_GNU_IFUNC
	Object  bool
	Global  bool
	Weak    bool
	Dynamic bool // from .dynsym
	// Old is set for a version of the symbol that programs linked today don't
	// get (name@VERSION rather than name@@VERSION).
	Old bool
}

// Over reports whether s rather than b is meant by a name that both have.
func (s Symbol) Over(b Symbol) bool {
	if s.Old != b.Old {
		return b.Old
	}
	return s.Global && !b.Global
}

// Symbols lists the defined symbols of .symtab, or of .dynsym when there is no
// .symtab, and the PLT's stubs, sorted by value.
func (f *File) Symbols() ([]Symbol, error) {
	f.symOnce.Do(func() {
		dynamic := false
		raw, err := f.elf.Symbols()
		if err != nil || len(raw) == 0 {
			dynamic = true
			var derr error
			if raw, derr = f.elf.DynamicSymbols(); derr != nil && !errors.Is(derr, elf.ErrNoSymbols) {
				f.symErr = fmt.Errorf("%s: symbols: %w: %v", f.Name, ErrMalformed, derr)
				return
			}
			if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
				f.symErr = fmt.Errorf("%s: symbols: %w: %v", f.Name, ErrMalformed, err)
			}
		}
		f.syms = sorted(append(convert(raw, dynamic), f.pltSymbols()...))
	})
	return f.syms, f.symErr
}

// sorted orders symbols by value; those with the same one stay in their order. It
// moves keys of two words rather than symbols, of which a program has ten thousand.
func sorted(syms []Symbol) []Symbol {
	type key struct {
		value uint64
		at    int
	}
	keys := make([]key, len(syms))
	for i := range syms {
		keys[i] = key{syms[i].Value, i}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.value, b.value), cmp.Compare(a.at, b.at))
	})
	out := make([]Symbol, len(syms))
	for i, k := range keys {
		out[i] = syms[k.at]
	}
	return out
}

// Merge puts two lists that are sorted by value into one; at the same value those
// of a come first.
func Merge(a, b []Symbol) []Symbol {
	out := make([]Symbol, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].Value <= b[0].Value {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// Exported finds a symbol of .dynsym by name, without its version. That table
// is a fifth of .symtab's size in a program that has both.
func (f *File) Exported(name string) (Symbol, bool) {
	f.dynOnce.Do(func() {
		raw, err := f.elf.DynamicSymbols()
		if err != nil {
			return // a static program, or a lie that Symbols reports
		}
		f.dyn = make(map[string]Symbol, len(raw))
		for _, s := range convert(raw, true) {
			if have, ok := f.dyn[s.Name]; !ok || s.Over(have) {
				f.dyn[s.Name] = s
			}
		}
	})
	s, ok := f.dyn[name]
	return s, ok
}

func convert(raw []elf.Symbol, dynamic bool) []Symbol {
	out := make([]Symbol, 0, len(raw))
	for _, s := range raw {
		if s.Section == elf.SHN_UNDEF || s.Name == "" || s.Section == elf.SHN_ABS {
			continue
		}
		typ, bind := elf.ST_TYPE(s.Info), elf.ST_BIND(s.Info)
		if typ == elf.STT_SECTION || typ == elf.STT_FILE || typ == elf.STT_TLS {
			continue
		}
		_, version, _ := strings.Cut(s.Name, "@")
		old := version != "" && version[0] != '@' && version != "plt"
		if dynamic {
			old = s.HasVersion && s.VersionIndex.IsHidden()
		}
		out = append(out, Symbol{
			Old: old, Name: s.Name, Value: s.Value, Size: s.Size,
			Func: typ == elf.STT_FUNC || typ == elf.STT_GNU_IFUNC, Object: typ == elf.STT_OBJECT,
			Global: bind == elf.STB_GLOBAL, Weak: bind == elf.STB_WEAK, Dynamic: dynamic,
		})
	}
	return out
}
