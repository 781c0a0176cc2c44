package dwinfo

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A variant is testdata/inlines.c, compiled twice under different names and
// linked together, with one way of writing debug information.
type variant struct {
	name  string
	flags []string
	// after turns prog, in dir, into what is tested; alt is the supplement.
	after func(t *testing.T, dir string) (alt string)
}

var variants = []variant{
	{name: "dwarf5", flags: []string{"-gdwarf-5"}},
	{name: "dwarf4", flags: []string{"-gdwarf-4"}},
	{name: "dwarf3 strict", flags: []string{"-gdwarf-3", "-gstrict-dwarf"}},
	{name: "dwarf2 strict", flags: []string{"-gdwarf-2", "-gstrict-dwarf"}},
	{name: "dwarf5, 64-bit", flags: []string{"-gdwarf-5", "-gdwarf64"}},
	{name: "dwarf4, 64-bit", flags: []string{"-gdwarf-4", "-gdwarf64"}},
	{name: "no .debug_aranges", flags: []string{"-gdwarf-5"}, after: func(t *testing.T, dir string) string {
		run(t, dir, "objcopy", "--remove-section=.debug_aranges", "prog")
		return ""
	}},
	{name: "dwz partial units", flags: []string{"-gdwarf-4"}, after: dwz},
	{name: "dwz partial units, dwarf5", flags: []string{"-gdwarf-5"}, after: dwz},
	{name: "dwz supplementary file", flags: []string{"-gdwarf-4"}, after: dwzAlt},
	{name: "dwz supplementary file, dwarf5", flags: []string{"-gdwarf-5"}, after: dwzAlt},
}

func dwz(t *testing.T, dir string) string {
	needTool(t, "dwz")
	run(t, dir, "dwz", "prog")
	return ""
}

func dwzAlt(t *testing.T, dir string) string {
	needTool(t, "dwz")
	run(t, dir, "cp", "prog", "twin")
	run(t, dir, "dwz", "-m", "supplement", "prog", "twin")
	return filepath.Join(dir, "supplement")
}

func run(t *testing.T, dir string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(needTool(t, name), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// build compiles a variant and opens it.
func (v variant) build(t *testing.T) (path string, d *Data) {
	t.Helper()
	src, err := filepath.Abs("testdata/inlines.c")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cc := func(args ...string) {
		run(t, dir, "gcc", append(append([]string{"-O2", "-w"}, v.flags...), args...)...)
	}
	cc("-c", "-o", "one.o", src)
	cc("-c", "-o", "two.o", "-Dmain=main2", "-Dsplit=split2", "-Dwith_nested=nested2",
		"-Dsink=sink2", "-Dhead=head2", "-Dnothing=nothing2", "-Dsome_bits=bits2", src)
	cc("-Wl,--no-warn-execstack", "-o", "prog", "one.o", "two.o")
	path = filepath.Join(dir, "prog")
	var alt Sections
	if v.after != nil {
		if p := v.after(t, dir); p != "" {
			alt = loadSections(t, p)
		}
	}
	if d, err = Open(loadSections(t, path), alt); err != nil {
		t.Fatal(err)
	}
	return path, d
}

// marked returns the number of the line of inlines.c that holds a text.
func marked(t *testing.T, text string) int {
	t.Helper()
	b, err := os.ReadFile("testdata/inlines.c")
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range strings.Split(string(b), "\n") {
		if strings.Contains(l, text) {
			return i + 1
		}
	}
	t.Fatalf("no line with %q", text)
	return 0
}

func TestVariantsOfDebugInformation(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			path, d := v.build(t)
			f := openELF(t, path)
			syms := make(map[string]elf.Symbol)
			var pcs []uint64
			for _, s := range functionSymbols(t, f) {
				syms[s.Name] = s
			}
			// Not nested.0: gdb's Python counts the lexical parent of a nested
			// function as one more function around the pc; its bt does not.
			for _, n := range []string{"main", "split", "split.cold", "complain", "with_nested", "main2", "split2"} {
				s, ok := syms[n]
				if !ok {
					t.Fatalf("no symbol %s", n)
				}
				for pc := s.Value; pc < s.Value+s.Size; pc++ {
					pcs = append(pcs, pc)
				}
			}
			// Strict DWARF 2 knows neither call sites nor range lists.
			full := v.name != "dwarf2 strict"
			t.Run("inlined calls", func(t *testing.T) {
				if full {
					checkInlined(t, d, syms["split"])
				}
			})
			t.Run("cold part", func(t *testing.T) {
				if !full {
					return
				}
				fr := mustFrames(t, d, syms["split.cold"].Value)
				if last := fr[len(fr)-1]; last.Name != "split" || last.Low != syms["split"].Value {
					t.Errorf("cold part: %+v, want split with Low %#x", last, syms["split"].Value)
				}
			})
			t.Run("function nested in a function", func(t *testing.T) {
				fr := mustFrames(t, d, syms["nested.0"].Value)
				if len(fr) != 1 || fr[0].Name != "nested" || fr[0].External || fr[0].Low != syms["nested.0"].Value {
					t.Errorf("got %+v", fr)
				}
			})
			t.Run("gdb agrees", func(t *testing.T) {
				want := gdbFrames(t, path, pcs)
				raw := func(f *Func) string { return f.FileRaw }
				for _, pc := range pcs {
					if g, w := sketch(mustFrames(t, d, pc), raw), sketch(want[pc], raw); g != w {
						t.Errorf("%#x\n got %s\n gdb %s", pc, g, w)
					}
				}
			})
			t.Run("no unit", func(t *testing.T) {
				for _, pc := range []uint64{0, 1, 1 << 40, ^uint64(0)} {
					if fr, err := d.FramesAt(pc); len(fr) != 0 || err != nil {
						t.Errorf("%#x: %v, %v", pc, fr, err)
					}
				}
			})
			t.Run("structs", func(t *testing.T) { checkStructs(t, d, syms["main"].Value) })
		})
	}
}

func mustFrames(t *testing.T, d *Data, pc uint64) []Func {
	t.Helper()
	fr, err := d.FramesAt(pc)
	if err != nil || len(fr) == 0 {
		t.Fatalf("%#x: %v, %v", pc, fr, err)
	}
	return fr
}

// checkInlined wants one pc with leaf in middle in split, each with its line.
func checkInlined(t *testing.T, d *Data, split elf.Symbol) {
	src, _ := filepath.Abs("testdata/inlines.c")
	want := []Func{
		{Name: "leaf", Line: marked(t, "leaf body"), Inlined: true},
		{Name: "middle", Line: marked(t, "middle calls leaf"), Inlined: true},
		{Name: "split", Line: marked(t, "split calls middle"), External: true},
	}
	for i := range want {
		want[i].File, want[i].FileRaw, want[i].Low = src, src, split.Value
	}
	seen := make(map[string]bool)
	for pc := split.Value; pc < split.Value+split.Size; pc++ {
		got := mustFrames(t, d, pc)
		if len(got) == 3 && got[0] == want[0] && got[1] == want[1] && got[2] == want[2] {
			return
		}
		seen[sketch(got, func(f *Func) string { return f.File })] = true
	}
	t.Errorf("no pc of split shows %+v; seen: %v", want, seen)
}

func checkStructs(t *testing.T, d *Data, pc uint64) {
	got, err := d.StructsIn([]uint64{pc}, "outer", "bits", "inner", "declared_only", "absent")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"declared_only", "absent"} {
		if got[n] != nil {
			t.Errorf("%s: found %+v", n, got[n])
		}
	}
	for _, tc := range []struct {
		name    string
		size    uint64
		members map[string]Member
	}{
		{"outer", 160, map[string]Member{
			"first": {0, 4, 0, 0}, "a": {4, 2, 0, 0}, "b": {6, 2, 0, 0}, "word": {4, 4, 0, 0},
			"packed": {8, 8, 0, 0}, "packed.low": {8, 4, 0, 3}, "packed.mid": {8, 4, 3, 7},
			"packed.wide": {8, 8, 10, 40}, "packed.tail": {15, 1, 0, 0},
			"in": {16, 80, 0, 0}, "one": {96, 40, 0, 0}, "one.name": {96, 10, 0, 0}, "one.values": {112, 24, 0, 0},
			"next": {136, 8, 0, 0}, "call": {144, 8, 0, 0}, "cv": {152, 8, 0, 0}, "flexible": {160, 0, 0, 0},
		}},
		{"bits", 8, map[string]Member{"low": {0, 4, 0, 3}, "mid": {0, 4, 3, 7}, "wide": {0, 8, 10, 40}, "tail": {7, 1, 0, 0}}},
		{"inner", 40, map[string]Member{"name": {0, 10, 0, 0}, "values": {16, 24, 0, 0}}},
	} {
		s := got[tc.name]
		if s == nil {
			t.Errorf("%s: not found", tc.name)
			continue
		}
		if s.Size != tc.size || len(s.Members) != len(tc.members) {
			t.Errorf("%s: size %d with %d members, want %d with %d", tc.name, s.Size, len(s.Members), tc.size, len(tc.members))
		}
		for n, m := range tc.members {
			if s.Members[n] != m {
				t.Errorf("%s.%s: %+v, want %+v", tc.name, n, s.Members[n], m)
			}
		}
	}
}

func TestConcurrentQuestionsGiveTheSameAnswers(t *testing.T) {
	path := phpBinary(t)
	f := openELF(t, path)
	pcs := samplePCs(t, f, 200)
	file := func(f *Func) string { return f.File }
	one, err := Open(elfSections{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]string, len(pcs))
	for i, pc := range pcs {
		want[i] = sketch(mustFrames(t, one, pc), file)
	}
	d, err := Open(elfSections{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range pcs {
				k := (i*(2*w+1) + w) % len(pcs)
				fr, err := d.FramesAt(pcs[k])
				if got := sketch(fr, file); err != nil || got != want[k] {
					t.Errorf("%#x: %s, %v; want %s", pcs[k], got, err, want[k])
				}
			}
			if s, err := d.StructsIn(pcs[w:w+1], "_zval_struct"); err != nil {
				t.Errorf("StructsIn: %v, %v", s, err)
			}
		})
	}
	wg.Wait()
}
