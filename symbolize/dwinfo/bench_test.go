package dwinfo

import (
	"debug/elf"
	"os"
	"syscall"
	"testing"
)

// mapped hands out the sections of an uncompressed file from one mapping, as
// a caller in a hurry does.
type mapped struct {
	f *elf.File
	b []byte
}

func mapFile(tb testing.TB, path string) mapped {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = syscall.Munmap(b) })
	return mapped{openELF(tb, path), b}
}

func (m mapped) Section(name string) ([]byte, error) {
	s := m.f.Section(name)
	if s == nil {
		return nil, nil
	}
	if s.Flags&elf.SHF_COMPRESSED != 0 {
		return s.Data()
	}
	return m.b[s.Offset : s.Offset+s.FileSize], nil
}

// concatStack are the functions on the native stack of a php that appends to a
// string without end, and how deep inside each the pc is looked for.
var concatStack = []string{
	"zend_mm_realloc_huge", "zend_mm_realloc_huge", "concat_function", "concat_function",
	"execute_ex", "execute_ex", "zend_execute", "zend_execute_scripts", "zend_execute_scripts",
	"php_execute_script", "php_execute_script", "do_cli", "main", "main",
}

func stackPCs(tb testing.TB, f *elf.File) []uint64 {
	tb.Helper()
	byName := make(map[string]elf.Symbol)
	for _, s := range functionSymbols(tb, f) {
		byName[s.Name] = s
	}
	var pcs []uint64
	for i, n := range concatStack {
		s, ok := byName[n]
		if !ok {
			tb.Fatalf("no function %s", n)
		}
		pcs = append(pcs, s.Value+s.Size*uint64(i%3+1)/4)
	}
	return pcs
}

// BenchmarkColdStack opens php's debug information and symbolizes 14 frames.
func BenchmarkColdStack(b *testing.B) {
	path := phpBinary(b)
	m := mapFile(b, path)
	pcs := stackPCs(b, m.f)
	b.ReportAllocs()
	for b.Loop() {
		d, err := Open(m, nil)
		if err != nil {
			b.Fatal(err)
		}
		for _, pc := range pcs {
			if f, err := d.FramesAt(pc); err != nil || len(f) == 0 {
				b.Fatal(f, err)
			}
		}
	}
}

// BenchmarkWarmFrame looks addresses up in units that have been used before.
func BenchmarkWarmFrame(b *testing.B) {
	m := mapFile(b, phpBinary(b))
	pcs := stackPCs(b, m.f)
	d, err := Open(m, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if f, err := d.FramesAt(pcs[i%len(pcs)]); err != nil || len(f) == 0 {
			b.Fatal(f, err)
		}
	}
}

// BenchmarkColdLibc opens libc's separate debug file, whose sections are
// compressed, and looks mremap up; most of it is the decompression.
func BenchmarkColdLibc(b *testing.B) {
	_, path := libc(b)
	f := openELF(b, path)
	var pc uint64
	for _, s := range functionSymbols(b, f) {
		if s.Name == "__mremap" || s.Name == "mremap" || s.Name == "__GI___mremap" {
			pc = s.Value
		}
	}
	for _, tc := range []struct {
		name string
		s    Sections
	}{{"compressed", elfSections{f}}, {"inflated", loadSections(b, path)}} {
		b.Run(tc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, err := Open(tc.s, nil)
				if err != nil {
					b.Fatal(err)
				}
				if f, err := d.FramesAt(pc); err != nil || len(f) == 0 {
					b.Fatal(f, err)
				}
			}
		})
	}
}

// BenchmarkColdStructs reads one layout with the unit known.
func BenchmarkColdStructs(b *testing.B) {
	m := mapFile(b, phpBinary(b))
	pcs := stackPCs(b, m.f)
	for b.Loop() {
		d, err := Open(m, nil)
		if err != nil {
			b.Fatal(err)
		}
		s, err := d.StructsIn(pcs[4:5], "_zend_executor_globals", "_zend_execute_data", "_zend_op_array", "_zend_op", "_zend_string")
		if err != nil || len(s) != 5 {
			b.Fatal(len(s), err)
		}
	}
}
