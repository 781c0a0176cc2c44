package objfile

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const libc = "/lib/x86_64-linux-gnu/libc.so.6"

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(b []byte) (*File, error) { return Open("x", bytes.NewReader(b), int64(len(b)), nil) }

// header is where section name's header lies in the file.
func header(t testing.TB, b []byte, name string) int {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range f.Sections {
		if s.Name == name {
			return int(binary.LittleEndian.Uint64(b[0x28:])) + 64*i
		}
	}
	t.Fatalf("no section %s", name)
	return 0
}

func TestLyingFilesAreErrors(t *testing.T) {
	whole := read(t, libc)
	set := func(at int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[at:], v); return b }
	}
	for _, tt := range []struct {
		name   string
		damage func([]byte) []byte
		use    func(*File) error
	}{
		{"empty", func([]byte) []byte { return nil }, nil},
		{"no ELF", func([]byte) []byte { return []byte("#!/bin/sh\n") }, nil},
		{"cut in the header", func(b []byte) []byte { return b[:40] }, nil},
		{"cut before the section headers", func(b []byte) []byte { return b[:len(b)/2] }, nil},
		{"32-bit", func(b []byte) []byte { b[4] = 1; return b }, nil},
		{"a section beyond the file", set(header(t, whole, ".rodata")+0x20, 1<<40), func(f *File) error { _, err := f.Section(".rodata"); return err }},
		{"a section that begins beyond the file", set(header(t, whole, ".rodata")+0x18, 1<<62), func(f *File) error { _, err := f.Section(".rodata"); return err }},
		{"symbols beyond the file", set(header(t, whole, ".dynsym")+0x20, 1<<40), func(f *File) error { _, err := f.Symbols(); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := parse(tt.damage(bytes.Clone(whole)))
			if err == nil && tt.use != nil {
				err = tt.use(f)
			}
			if !errors.Is(err, ErrMalformed) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line of %v", err, ErrMalformed)
			}
		})
	}
}

func TestACompressedSectionCannotClaimTooMuch(t *testing.T) {
	dir := t.TempDir()
	src, out := filepath.Join(dir, "x.c"), filepath.Join(dir, "x")
	if err := os.WriteFile(src, []byte("int main(void) { return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command("gcc", "-g3", "-gz=zlib", "-o", out, src).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	b := read(t, out)
	f, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := f.Section(".debug_info"); err != nil || len(s) == 0 {
		t.Fatalf("the honest section: %d bytes, %v", len(s), err)
	}
	ef, _ := elf.NewFile(bytes.NewReader(b))
	at := int(ef.Section(".debug_info").Offset) + 8 // Chdr.ch_size
	binary.LittleEndian.PutUint64(b[at:], 1<<33)
	if f, err = parse(b); err == nil {
		_, err = f.Section(".debug_info")
	}
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

func TestBuildIDAndDebugFileOfLibc(t *testing.T) {
	f, err := OpenPath(libc)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := exec.Command("readelf", "-n", libc).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`Build ID: ([0-9a-f]+)`).FindSubmatch(out)
	if want == nil || f.BuildID() != string(want[1]) {
		t.Errorf("build-id %q, readelf says %q", f.BuildID(), want)
	}
	d, err := f.DebugFile(libc, []string{"/usr/lib/debug"})
	if err != nil {
		if os.Getenv("CI") == "" {
			t.Skip("missing: libc6-dbg")
		}
		t.Fatal(err)
	}
	defer d.Close()
	if d.BuildID() != f.BuildID() || !d.Has(".debug_info") {
		t.Errorf("found %s", d.Name)
	}
	if _, err := f.DebugFile(libc, []string{t.TempDir()}); !errors.Is(err, ErrNoDebugFile) {
		t.Errorf("without a root: %v", err)
	}
}

func TestADebugFileOfAnotherBuildIsRefused(t *testing.T) {
	dir := t.TempDir()
	src, exe := filepath.Join(dir, "x.c"), filepath.Join(dir, "x")
	sh := func(cmd string) {
		t.Helper()
		c := exec.Command("sh", "-ec", cmd)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", cmd, err, out)
		}
	}
	if err := os.WriteFile(src, []byte("int main(void) { return 0; }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh("gcc -g -Wl,--build-id=none -o x x.c && objcopy --only-keep-debug x x.debug && strip x && objcopy --add-gnu-debuglink=x.debug x")
	f, err := OpenPath(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DebugFile(exe, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
	sh("printf x >> x.debug")
	if d, err := f.DebugFile(exe, nil); !errors.Is(err, ErrNoDebugFile) {
		t.Errorf("a changed debug file was taken: %v, %v", d, err)
	}
}

// TestPLTNamesAgreeWithObjdump compares with what objdump names the stubs.
func TestPLTNamesAgreeWithObjdump(t *testing.T) {
	exe, err := exec.LookPath("sort")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("objdump", "-d", "-j", ".plt", "-j", ".plt.got", exe).Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := OpenPath(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	have := make(map[uint64]string)
	for _, s := range f.pltSymbols() {
		have[s.Value] = s.Name
	}
	n := 0
	for _, m := range regexp.MustCompile(`(?m)^([0-9a-f]{16}) <([^>]+@plt)>:`).FindAllStringSubmatch(string(out), -1) {
		at, err := strconv.ParseUint(m[1], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if have[at] != m[2] {
			t.Errorf("%#x is %q, objdump says %q", at, have[at], m[2])
		}
		n++
	}
	if n < 20 {
		t.Errorf("only %d stubs were compared", n)
	}
}

// FuzzOpen holds that no file makes the package panic, and that no section is
// larger than the limit.
func FuzzOpen(f *testing.F) {
	b := read(f, libc)
	shoff := int(binary.LittleEndian.Uint64(b[0x28:]))
	small := append(bytes.Clone(b[:4096]), b[shoff:]...)
	binary.LittleEndian.PutUint64(small[0x28:], 4096)
	f.Add(small)
	f.Add(b[:600])
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parse(b)
		if err != nil {
			return
		}
		_, _ = x.Symbols()
		_, _ = x.Exported("mremap")
		_, _, _ = x.debugLink()
		_ = x.BuildID()
		_ = x.Loads()
		for _, s := range x.elf.Sections {
			if d, err := x.Section(s.Name); err == nil && len(d) > maxSection {
				t.Fatalf("%d bytes", len(d))
			}
		}
	})
}
