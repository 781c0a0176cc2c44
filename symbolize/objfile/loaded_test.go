package objfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// mapped reads what a process has of a file.
func mapped(t testing.TB, pid int, path string) []Piece {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var out []Piece
	for line := range strings.Lines(string(maps)) {
		var p Piece
		var end, inode uint64
		var perms, dev, name string
		if n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d %s", &p.At, &end, &perms, &p.Offset, &dev, &inode, &name); n < 7 || !same(name, path) {
			continue
		}
		p.Write = perms[1] == 'w'
		p.Data = make([]byte, end-p.At)
		n, err := mem.ReadAt(p.Data, int64(p.At))
		if n == 0 {
			t.Fatal(err)
		}
		p.Data = p.Data[:n]
		out = append(out, p)
	}
	if len(out) == 0 {
		t.Fatalf("%s is not mapped", path)
	}
	return out
}

func same(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// sleeper is a process that has finished to load its libraries.
func sleeper(t testing.TB, php ...string) int {
	t.Helper()
	c := exec.Command(php[0], php[1:]...)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	done := time.AfterFunc(10*time.Second, func() { _ = c.Process.Kill() })
	defer done.Stop()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

func TestALoadedFileIsAsGoodAsTheFileForStacks(t *testing.T) {
	for _, path := range []string{libc, "/usr/bin/php8.2"} {
		t.Run(path, func(t *testing.T) {
			if _, err := os.Stat("/usr/bin/php8.2"); err != nil {
				t.Skip("missing: Debian's php8.2-cli")
			}
			pid := sleeper(t, "/usr/bin/php8.2", "-n", "-r", "echo 1; sleep(60);")
			got, err := FromLoaded(path, mapped(t, pid, path))
			if err != nil {
				t.Fatal(err)
			}
			want, err := OpenPath(path)
			if err != nil {
				t.Fatal(err)
			}
			defer want.Close()
			if got.BuildID() == "" || got.BuildID() != want.BuildID() {
				t.Errorf("build-id %q, the file has %q", got.BuildID(), want.BuildID())
			}
			if g, w := fmt.Sprint(got.Loads()), fmt.Sprint(want.Loads()); g != w {
				t.Errorf("segments %s, the file has %s", g, w)
			}
			for _, name := range []string{".eh_frame", ".eh_frame_hdr", ".rodata", ".dynstr", ".gnu.version"} {
				g, err1 := got.Section(name)
				w, err2 := want.Section(name)
				if err := errors.Join(err1, err2); err != nil || len(w) == 0 || !bytes.Contains(g, w) {
					t.Errorf("%s: %d bytes without the file's %d, %v", name, len(g), len(w), err)
				}
				if name != ".rodata" && got.Addr(name) != want.Addr(name) {
					t.Errorf("%s is at %#x, in the file at %#x", name, got.Addr(name), want.Addr(name))
				}
			}
			compareExports(t, got, want)
		})
	}
}

// compareExports wants each function of the file's .dynsym with the same
// address, size and version.
func compareExports(t *testing.T, got, want *File) {
	t.Helper()
	raw, err := want.elf.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range convert(raw, true) {
		w, _ := want.Exported(s.Name)
		if g, ok := got.Exported(s.Name); !ok || g != w {
			t.Errorf("%s is %+v (%v), in the file %+v", s.Name, g, ok, w)
		}
		n++
	}
	if n < 1000 {
		t.Errorf("only %d symbols compared", n)
	}
}

func TestWhatIsMissingOfALoadedFileIsAnError(t *testing.T) {
	page := func(b []byte) Piece { return Piece{At: 0x1000, Data: b} }
	whole := read(t, libc)
	for name, pieces := range map[string][]Piece{
		"nothing":             nil,
		"no first page":       {{At: 0x5000, Offset: 0x4000, Data: whole[0x4000:0x8000]}},
		"no ELF":              {page(bytes.Repeat([]byte("#!/bin/sh\n"), 100))},
		"too far":             {{Offset: 1 << 60, Data: whole[:4096]}},
		"mostly gaps":         {page(whole[:4096]), {Offset: 1 << 24, Data: whole[:4096]}},
		"too much":            {{Offset: maxLoaded, Data: whole[:4096]}},
		"cut in its header":   {page(whole[:60])},
		"cut in its segments": {page(whole[:70])},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := FromLoaded("x", pieces); !errors.Is(err, ErrMalformed) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line of %v", err, ErrMalformed)
			}
		})
	}
}

// Property: whatever is in memory, FromLoaded and what reads its result end
// without a panic, and no section reaches beyond the file.
func FuzzLoaded(f *testing.F) {
	small := read(f, "/lib/x86_64-linux-gnu/libdl.so.2") // of glibc, and nearly empty
	f.Add(small, uint32(0), uint64(0))
	f.Add(small, uint32(0x40), uint64(1<<62))
	f.Add(small, uint32(0x1c0), uint64(1<<64-1))
	f.Fuzz(func(t *testing.T, b []byte, at uint32, v uint64) {
		b = bytes.Clone(b)
		if int(at)+8 <= len(b) {
			for i := range 8 {
				b[int(at)+i] = byte(v >> (8 * i))
			}
		}
		file, err := FromLoaded("x", []Piece{{At: 0x7f0000000000, Data: b}, {At: 0x7f0000100000, Offset: uint64(at), Data: b[len(b)/2:], Write: true}})
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		_ = file.BuildID()
		_, _ = file.Symbols()
		_, _ = file.Exported("mmap")
		for _, s := range []string{".eh_frame", ".eh_frame_hdr", ".rodata"} {
			if d, err := file.Section(s); err == nil && uint64(len(d)) > uint64(len(b))+uint64(at) {
				t.Errorf("%s has %d bytes", s, len(d))
			}
		}
	})
}
