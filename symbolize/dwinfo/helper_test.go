package dwinfo

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// elfSections feeds the sections of a real file, decompressed by debug/elf.
type elfSections struct{ f *elf.File }

func (s elfSections) Section(name string) ([]byte, error) {
	sec := s.f.Section(name)
	if sec == nil || sec.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	return sec.Data()
}

// mapSections are sections in memory.
type mapSections map[string][]byte

func (m mapSections) Section(name string) ([]byte, error) { return m[name], nil }

// loadSections reads all sections that the package may ask for.
func loadSections(tb testing.TB, path string) mapSections {
	tb.Helper()
	f := openELF(tb, path)
	m := mapSections{}
	for _, n := range sectionNames {
		b, err := elfSections{f}.Section(n)
		if err != nil {
			tb.Fatalf("%s: section %s: %v", path, n, err)
		}
		m[n] = b
	}
	return m
}

func openELF(tb testing.TB, path string) *elf.File {
	tb.Helper()
	f, err := elf.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}

// missing skips the test, or fails it where everything must be installed.
func missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatalf("%s is missing", what)
	}
	tb.Skipf("%s is missing", what)
}

func needTool(tb testing.TB, name string) string {
	tb.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		missing(tb, "the program "+name)
	}
	return p
}

// phpBinary is a PHP 8.2 with DWARF in it.
func phpBinary(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("PHPWHY_PHP_DIR")
	if dir == "" {
		dir = filepath.Join("..", "..", ".cache", "php", "8.2-nts")
	}
	p := filepath.Join(dir, "bin", "php")
	if _, err := os.Stat(p); err != nil {
		missing(tb, "the PHP build with DWARF ("+p+", or set PHPWHY_PHP_DIR)")
	}
	return p
}

// libc returns the C library and its separate debug file, found by build-id.
func libc(tb testing.TB) (lib, debug string) {
	tb.Helper()
	for _, lib = range []string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"} {
		f, err := elf.Open(lib)
		if err != nil {
			continue
		}
		defer f.Close()
		sec := f.Section(".note.gnu.build-id")
		if sec == nil {
			continue
		}
		note, err := sec.Data()
		if err != nil || len(note) < 16 || !bytes.Equal(note[12:15], []byte("GNU")) {
			continue
		}
		id := hex.EncodeToString(note[16:])
		debug = "/usr/lib/debug/.build-id/" + id[:2] + "/" + id[2:] + ".debug"
		if _, err := os.Stat(debug); err == nil {
			return lib, debug
		}
	}
	missing(tb, "debug information of libc (Debian: libc6-dbg)")
	return "", ""
}

// functionSymbols lists the functions of a symbol table.
func functionSymbols(tb testing.TB, f *elf.File) []elf.Symbol {
	tb.Helper()
	syms, err := f.Symbols()
	if err != nil {
		tb.Fatal(err)
	}
	out := syms[:0]
	for _, s := range syms {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC && s.Size > 0 && s.Section != elf.SHN_UNDEF {
			out = append(out, s)
		}
	}
	return out
}
