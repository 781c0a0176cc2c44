package objfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// compressedProgram is an object with large compressed debug sections.
func compressedProgram(t *testing.T) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("gcc is missing")
		}
		t.Skip("gcc is missing")
	}
	var c strings.Builder
	for i := range 2500 {
		fmt.Fprintf(&c, "struct s%d { int a%d; }; int function_%d(struct s%d *p, int q) { int r = q * %d; return r + p->a%d; }\n", i, i, i, i, i, i)
	}
	src, out := filepath.Join(t.TempDir(), "big.c"), filepath.Join(t.TempDir(), "big.o")
	if err := os.WriteFile(src, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(gcc, "-c", "-g", "-gz=zlib", "-o", out, src).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, b)
	}
	return out
}

func openFile(t *testing.T, path string) *File {
	t.Helper()
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := FromOS(r, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestASectionInPartsIsTheWholeSection(t *testing.T) {
	path := compressedProgram(t)
	want, err := openFile(t, path).Section(".debug_info")
	if err != nil || len(want) < 3*inflateStep {
		t.Fatalf("%d bytes, %v", len(want), err)
	}
	std, err := openFile(t, path).raw(".debug_info").Data()
	if err != nil || !bytes.Equal(std, want) {
		t.Fatalf("not what debug/elf says (%v)", err)
	}
	f := openFile(t, path)
	part, err := f.SectionTo(".debug_info", 10)
	if err != nil || len(part) != len(want) || !bytes.Equal(part[:10], want[:10]) {
		t.Fatalf("%d bytes, %v", len(part), err)
	}
	if !bytes.Equal(part[len(part)-100:], make([]byte, 100)) {
		t.Error("the end was inflated, too: nothing is saved")
	}
	var wg sync.WaitGroup
	for n := 0; n <= len(want)+1000; n += 20_000 {
		wg.Go(func() {
			b, err := f.SectionTo(".debug_info", n)
			if m := min(n, len(want)); err != nil || !bytes.Equal(b[:m], want[:m]) {
				t.Errorf("the first %d bytes: %v", n, err)
			}
		})
	}
	wg.Wait()
	if b, err := f.Section(".debug_info"); err != nil || !bytes.Equal(b, want) {
		t.Errorf("whole, after parts: %v", err)
	}
	if b, err := f.SectionTo(".text", 1); err != nil || len(b) == 0 {
		t.Errorf("a section that is not compressed: %d bytes, %v", len(b), err)
	}
	if b, err := f.SectionTo(".none", 1); err != nil || b != nil {
		t.Errorf("a section that is not there: %d bytes, %v", len(b), err)
	}
}

func TestACompressedSectionThatBreaksOffIsAnError(t *testing.T) {
	path := compressedProgram(t)
	s := openFile(t, path).raw(".debug_info")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := s.Offset + s.FileSize
	for i := end - 2000; i < end; i++ {
		b[i] = 0xff
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, path)
	if _, err := f.SectionTo(".debug_info", 100); err != nil {
		t.Errorf("what precedes the damage: %v", err)
	}
	for range 2 {
		if _, err := f.Section(".debug_info"); !errors.Is(err, ErrMalformed) {
			t.Errorf("the whole: %v", err)
		}
	}
}

func TestWhatWasInflatedBeforeIsTakenAndTheRestIsInflated(t *testing.T) {
	path := compressedProgram(t)
	want, err := openFile(t, path).Section(".debug_info")
	if err != nil {
		t.Fatal(err)
	}
	first := openFile(t, path)
	if _, err := first.SectionTo(".debug_info", 1000); err != nil {
		t.Fatal(err)
	}
	kept := make(map[string][]byte)
	first.EachInflated(func(section string, b []byte) { kept[section] = bytes.Clone(b) })
	b := kept[".debug_info"]
	if len(kept) != 1 || len(b) < 1000 || len(b) == len(want) || !bytes.Equal(b, want[:len(b)]) {
		t.Fatalf("%d sections, %d of %d bytes", len(kept), len(b), len(want))
	}
	b[7] ^= 0xff // shows what was taken
	want = bytes.Clone(want)
	want[7] ^= 0xff
	for name, n := range map[string]int{"less than was kept": 500, "more": len(b) + 1, "all": len(want)} {
		f := openFile(t, path)
		asked := 0
		f.KeepInflated(func(section string) []byte { asked++; return kept[section] })
		got, err := f.SectionTo(".debug_info", n)
		if err != nil || !bytes.Equal(got[:n], want[:n]) || asked != 1 {
			t.Errorf("%s: asked %d times, %v", name, asked, err)
		}
		news := 0
		f.EachInflated(func(string, []byte) { news++ })
		if (news > 0) != (n > len(b)) {
			t.Errorf("%s: %d sections have grown", name, news)
		}
	}
	f := openFile(t, path)
	f.KeepInflated(func(string) []byte { return make([]byte, len(want)+1) })
	if got, err := f.SectionTo(".debug_info", 10); err != nil || got[7] != want[7]^0xff {
		t.Errorf("more than the section has was believed (%v)", err)
	}
}
