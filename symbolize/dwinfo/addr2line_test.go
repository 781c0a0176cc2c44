package dwinfo

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// addr2lineFrames asks binutils for the frames at pcs; Name, File (the base
// name) and Line are set.
func addr2lineFrames(t *testing.T, binary string, pcs []uint64) map[uint64][]Func {
	t.Helper()
	var in strings.Builder
	for _, pc := range pcs {
		fmt.Fprintf(&in, "%#x\n", pc)
	}
	cmd := exec.Command(needTool(t, "addr2line"), "-a", "-i", "-f", "-e", binary)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("addr2line: %v", err)
	}
	res := make(map[uint64][]Func)
	var pc uint64
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := 0; i < len(lines); i++ {
		if hex, ok := strings.CutPrefix(lines[i], "0x"); ok {
			pc, _ = strconv.ParseUint(hex, 16, 64)
			continue
		}
		if i+1 == len(lines) {
			break
		}
		file, line, _ := strings.Cut(lines[i+1], ":")
		line, _, _ = strings.Cut(line, " ") // " (discriminator 2)"
		f := Func{Name: lines[i], File: filepath.Base(file)}
		f.Line, _ = strconv.Atoi(line)
		res[pc] = append(res[pc], f)
		i++
	}
	return res
}

// The ways in which addr2line (binutils 2.40) differs. gdb contradicts it in
// each: TestFramesAgreeWithGDB samples the same addresses.
const (
	agrees = ""
	// innermostRow: of several line table rows at one address it takes another
	// one than gdb, so file or line of the innermost function differ.
	innermostRow = "innermost row"
	// repeated: it prints the same functions twice, or three times.
	repeated = "repeated frames"
	// nameless: no function entry covers the address (gcc's identical code
	// folding leaves thunks without one); it asks the symbol table instead.
	nameless = "name from the symbol table"
	// wrong is all the rest, and does not occur.
	wrong = "wrong"
)

// TestFramesAgreeWithAddr2line is a second opinion, by a program that has
// nothing in common with gdb's line table rules.
func TestFramesAgreeWithAddr2line(t *testing.T) {
	for _, tc := range []struct {
		name    string
		n       int
		allowed float64 // share of addresses that may differ, in the known ways
		files   func(t *testing.T) string
	}{
		{"php", 3000, 0.15, func(t *testing.T) string { return phpBinary(t) }},
		{"libc", 2000, 0.15, func(t *testing.T) string { _, d := libc(t); return d }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := tc.files(t)
			f := openELF(t, path)
			d, err := Open(elfSections{f}, nil)
			if err != nil {
				t.Fatal(err)
			}
			pcs := samplePCs(t, f, tc.n)
			want := addr2lineFrames(t, path, pcs)
			base := func(f *Func) string { return filepath.Base(f.File) }
			classes := make(map[string]int)
			for _, pc := range pcs {
				got, err := d.FramesAt(pc)
				if err != nil {
					t.Errorf("%#x: %v", pc, err)
				}
				class := disagreement(got, want[pc])
				classes[class]++
				if class == wrong {
					t.Errorf("%#x\n got       %s\n addr2line %s", pc, sketch(got, base), sketch(want[pc], base))
				}
			}
			t.Logf("%d pcs: %v", len(pcs), classes)
			if n := len(pcs) - classes[agrees]; float64(n) > tc.allowed*float64(len(pcs)) {
				t.Errorf("%d of %d pcs differ: %v", n, len(pcs), classes)
			}
		})
	}
}

// disagreement names the way in which two answers differ.
func disagreement(got, want []Func) string {
	switch {
	case len(got) == 0 && len(want) == 1 && want[0].Line == 0: // code of no unit: crt1.o
		return agrees
	case len(got) == 0:
		return wrong
	case len(got) == 1 && got[0].Name == "":
		return nameless
	}
	extra := len(want) - len(got)
	if extra < 0 || extra%len(got) != 0 {
		return wrong
	}
	class := agrees
	for i, w := range want {
		g := got[i%len(got)]
		if g.Linkage != "" {
			g.Name = g.Linkage
		}
		switch {
		case g.Name != w.Name:
			return wrong
		case filepath.Base(g.File) == w.File && g.Line == w.Line:
		case i%len(got) > 0:
			return wrong
		default:
			class = innermostRow
		}
	}
	if extra > 0 {
		return repeated
	}
	return class
}
