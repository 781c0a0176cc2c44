package dwinfo

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// smallSections are the sections of testdata/inlines.c, compiled afresh.
func smallSections(tb testing.TB, flags ...string) mapSections {
	tb.Helper()
	src, err := filepath.Abs("testdata/inlines.c")
	if err != nil {
		tb.Fatal(err)
	}
	prog := filepath.Join(tb.TempDir(), "prog")
	args := append([]string{"-O2", "-w", "-Wl,--no-warn-execstack", "-o", prog, src}, flags...)
	if out, err := exec.Command(needTool(tb, "gcc"), args...).CombinedOutput(); err != nil {
		tb.Fatalf("gcc: %v\n%s", err, out)
	}
	return loadSections(tb, prog)
}

// ask puts every kind of question to damaged sections and checks what holds
// for any bytes whatever.
func ask(t *testing.T, s, alt Sections, pcs []uint64) {
	d, err := Open(s, alt)
	if err != nil {
		return
	}
	for _, pc := range pcs {
		frames, err := d.FramesAt(pc)
		checkFrames(t, pc, frames, err)
	}
	for _, err := range []error{
		second(d.Structs("outer", "bits", "absent")),
		second(d.StructsIn(pcs, "outer", "inner")),
	} {
		checkError(t, err)
	}
}

func second(_ map[string]*Struct, err error) error { return err }

func checkFrames(t *testing.T, pc uint64, frames []Func, err error) {
	t.Helper()
	checkError(t, err)
	for i, f := range frames {
		if f.Inlined != (i+1 < len(frames)) {
			t.Errorf("%#x: frame %d of %d: inlined is %t", pc, i, len(frames), f.Inlined)
		}
		if f.Low != frames[0].Low || f.Line < 0 {
			t.Errorf("%#x: frame %d: %+v", pc, i, f)
		}
	}
}

func checkError(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrLimit) && !errors.Is(err, ErrNoSupplement) {
		t.Errorf("error of no known kind: %v", err)
	}
}

// FuzzSections: whatever happens to the bytes of a real file's sections, the
// answers come without a panic and in time, the last frame and no other is a
// physical function, and errors are of the documented kinds. The input is a
// list of changes: section, offset (4 bytes), new byte.
func FuzzSections(f *testing.F) {
	if _, err := exec.LookPath("gcc"); err != nil {
		f.Skip("no gcc to make the section bytes with")
	}
	bases := []mapSections{smallSections(f, "-gdwarf-5"), smallSections(f, "-gdwarf-4")}
	pcs := []uint64{0, 0x1000, 0x1060, 0x1077, 0x10a0, 0x10b0, 0x11c4, 0x11e8, 0x1200, 0x1210, 0x1218, 0x1240, ^uint64(0)}
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0, 0xff})
	f.Add([]byte{0, 1, 0, 0, 0, 0xff, 1, 3, 0, 0, 30, 0})
	f.Add([]byte{0, 8, 0, 0, 200, 7, 1, 9, 0, 0, 20, 0x80, 3, 3, 0, 0, 90, 0})
	f.Fuzz(func(t *testing.T, changes []byte) {
		base := bases[0]
		if len(changes)%2 == 1 {
			base = bases[1]
		}
		s := mapSections{}
		for _, n := range sectionNames {
			s[n] = base[n]
		}
		copied := map[string]bool{}
		for ; len(changes) >= 6; changes = changes[6:] {
			n := sectionNames[int(changes[0])%len(sectionNames)]
			b := s[n]
			if len(b) == 0 {
				continue
			}
			if !copied[n] {
				b = append([]byte(nil), b...)
				s[n], copied[n] = b, true
			}
			off := int(binary.BigEndian.Uint32(changes[1:])) % len(b)
			b[off] = changes[5]
			if changes[1]&0x80 != 0 { // cut it there
				s[n] = b[:off]
			}
		}
		start := time.Now()
		ask(t, s, s, pcs)
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// TestDamagedSections cuts and overwrites every section at every third place, which
// the fuzzer reaches only by luck.
func TestDamagedSections(t *testing.T) {
	for _, flag := range []string{"-gdwarf-5", "-gdwarf-4"} {
		base := smallSections(t, flag)
		pcs := []uint64{0x1060, 0x1077, 0x10a0, 0x11c4, 0x11e8, 0x1200, 0x1240}
		for _, name := range sectionNames {
			whole := base[name]
			step := 3
			if testing.Short() {
				step = 37
			}
			for off := 0; off < len(whole); off += step {
				for _, x := range []int{-1, 0xff, 0x01} {
					s := mapSections{}
					for _, n := range sectionNames {
						s[n] = base[n]
					}
					if x < 0 {
						s[name] = whole[:off]
					} else {
						s[name] = append([]byte(nil), whole...)
						s[name][off] = byte(x)
					}
					ask(t, s, nil, pcs)
				}
			}
		}
	}
}

// TestErrorsKeepWhatWasFound: each damage costs what depends on it, no more.
func TestErrorsKeepWhatWasFound(t *testing.T) {
	base := smallSections(t, "-gdwarf-5")
	whole, err := Open(base, nil)
	if err != nil {
		t.Fatal(err)
	}
	var pc uint64
	for p := uint64(0x1000); p < 0x1400 && pc == 0; p++ {
		if fr, _ := whole.FramesAt(p); len(fr) == 3 {
			pc = p
		}
	}
	if pc == 0 {
		t.Fatal("no pc with two inlined calls")
	}
	broken := errors.New("disk on fire")
	for _, tc := range []struct {
		name    string
		section string
		bytes   []byte
		err     error
		frames  int
		lines   bool
	}{
		{"whole", "", nil, nil, 3, true},
		{"no line table", ".debug_line", []byte{1, 2, 3}, ErrMalformed, 3, false},
		{"no strings", ".debug_str", []byte{}, ErrMalformed, 3, true},
		{"no aranges", ".debug_aranges", []byte{}, nil, 3, true},
		{"no debug information", ".debug_info", []byte{}, ErrMalformed, 0, false},
		{"no abbreviations", ".debug_abbrev", []byte{}, ErrMalformed, 0, false},
		{"unreadable section", ".debug_info", nil, broken, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := failing{mapSections{}, "", broken}
			for n, b := range base {
				s.mapSections[n] = b
			}
			if tc.bytes != nil {
				s.mapSections[tc.section] = tc.bytes
			} else {
				s.name = tc.section
			}
			d, err := Open(s, nil)
			if err != nil {
				t.Fatal(err)
			}
			fr, err := d.FramesAt(pc)
			if !errors.Is(err, tc.err) {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			if len(fr) != tc.frames {
				t.Fatalf("frames %+v, want %d", fr, tc.frames)
			}
			if tc.frames > 0 && (fr[0].Line != 0) != tc.lines {
				t.Errorf("line %d", fr[0].Line)
			}
		})
	}
}

// failing refuses one section.
type failing struct {
	mapSections
	name string
	err  error
}

func (f failing) Section(name string) ([]byte, error) {
	if name == f.name {
		return nil, f.err
	}
	return f.mapSections.Section(name)
}

func TestMissingSupplementIsAnError(t *testing.T) {
	v := variants[len(variants)-2]
	path, d := v.build(t)
	f := openELF(t, path)
	without, err := Open(elfSections{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range functionSymbols(t, f) {
		if s.Name != "split" {
			continue
		}
		mustFrames(t, d, s.Value)
		if fr, err := without.FramesAt(s.Value); !errors.Is(err, ErrNoSupplement) {
			t.Errorf("without the supplement: %+v, %v", fr, err)
		}
		return
	}
	t.Fatal("no symbol split")
}

func TestMain(m *testing.M) {
	_ = os.Setenv("LC_ALL", "C") // messages of gcc and gdb
	os.Exit(m.Run())
}
