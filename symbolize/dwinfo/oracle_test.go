package dwinfo

import (
	"bufio"
	"debug/elf"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// gdbScript prints, per pc of the file named by $PCS, the line table's file
// and line and then, per function innermost first, name, and for an inlined
// call the file and line that call it.
const gdbScript = `
import gdb, os
gdb.execute("set pagination off")
for l in open(os.environ["PCS"]):
    pc = int(l)
    sal = gdb.find_pc_line(pc)
    out = [str(pc), sal.symtab.filename if sal.symtab else "", str(sal.line)]
    b = gdb.block_for_pc(pc)
    while b is not None and not b.is_global and not b.is_static:
        f = b.function
        if f is not None:
            out += [f.name, f.symtab.filename, str(f.line)]
        b = b.superblock
    print("PC\t" + "\t".join(out))
`

// gdbFrames asks gdb for the frames at pcs; FileRaw, Line and Name are set.
func gdbFrames(t *testing.T, binary string, pcs []uint64) map[uint64][]Func {
	t.Helper()
	gdb := needTool(t, "gdb")
	dir := t.TempDir()
	var list strings.Builder
	for _, pc := range pcs {
		fmt.Fprintln(&list, pc)
	}
	script := filepath.Join(dir, "frames.py")
	if err := os.WriteFile(filepath.Join(dir, "pcs"), []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(gdbScript), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gdb, "-nx", "-batch", "-iex", "set debuginfod enabled off", "-x", script, binary)
	cmd.Env = append(os.Environ(), "PCS="+filepath.Join(dir, "pcs"), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gdb: %v", err)
	}
	res := make(map[uint64][]Func)
	sc := bufio.NewScanner(strings.NewReader(string(out)))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		f := strings.Split(sc.Text(), "\t")
		if f[0] != "PC" {
			continue
		}
		pc, _ := strconv.ParseUint(f[1], 10, 64)
		cur := Func{FileRaw: f[2]}
		cur.Line, _ = strconv.Atoi(f[3])
		var frames []Func
		for f = f[4:]; len(f) >= 3; f = f[3:] {
			cur.Name = f[0]
			cur.Inlined = len(f) > 3
			frames = append(frames, cur)
			cur = Func{FileRaw: f[1]}
			cur.Line, _ = strconv.Atoi(f[2])
		}
		if frames == nil && cur.Line != 0 {
			frames = []Func{cur}
		}
		res[pc] = frames
	}
	return res
}

// samplePCs picks addresses inside of functions, the same in every run.
func samplePCs(tb testing.TB, f *elf.File, n int) []uint64 {
	tb.Helper()
	syms := functionSymbols(tb, f)
	if len(syms) == 0 {
		tb.Fatal("no function symbols")
	}
	r := rand.New(rand.NewPCG(1, 2))
	pcs := make([]uint64, 0, n)
	for i := range n {
		s := syms[r.IntN(len(syms))]
		if i%4 == 0 { // big functions hold most of the code
			for range 20 {
				if o := syms[r.IntN(len(syms))]; o.Size > s.Size {
					s = o
				}
			}
		}
		pcs = append(pcs, s.Value+r.Uint64N(s.Size))
	}
	return pcs
}

func sketch(frames []Func, file func(*Func) string) string {
	var b strings.Builder
	for i := range frames {
		f := frames[i]
		if f.Linkage != "" { // the name that gdb gives a C function
			f.Name = f.Linkage
		}
		fmt.Fprintf(&b, "%s %s:%d inl=%t; ", f.Name, file(&f), f.Line, f.Inlined)
	}
	return b.String()
}

func TestFramesAgreeWithGDB(t *testing.T) {
	for _, tc := range []struct {
		name    string
		n       int
		allowed float64 // share of pcs that may differ; the classes are listed below
		files   func(t *testing.T) (binary, debug string)
	}{
		{"php", 6000, 0, func(t *testing.T) (string, string) { p := phpBinary(t); return p, p }},
		{"libc", 4000, 0, func(t *testing.T) (string, string) { l, d := libc(t); return l, d }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("gdb reads every unit")
			}
			binary, debug := tc.files(t)
			f := openELF(t, debug)
			d, err := Open(elfSections{f}, nil)
			if err != nil {
				t.Fatal(err)
			}
			pcs := samplePCs(t, f, tc.n)
			want := gdbFrames(t, binary, pcs)
			raw := func(f *Func) string { return f.FileRaw }
			start := time.Now()
			differ, inlined := 0, 0
			for _, pc := range pcs {
				got, err := d.FramesAt(pc)
				if err != nil {
					t.Errorf("%#x: %v", pc, err)
				}
				if len(got) > 1 {
					inlined++
				}
				if g, w := sketch(got, raw), sketch(want[pc], raw); g != w {
					differ++
					if differ <= 40 {
						t.Logf("%#x\n got %s\n gdb %s", pc, g, w)
					}
				}
			}
			t.Logf("%d pcs, %d with inlined calls, %d differ, %v", len(pcs), inlined, differ, time.Since(start))
			if float64(differ) > tc.allowed*float64(len(pcs)) {
				t.Errorf("%d of %d pcs differ from gdb", differ, len(pcs))
			}
		})
	}
}
