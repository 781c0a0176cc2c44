package symbolize_test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

var update = flag.Bool("update", false, "record testdata/golden.json again")

// golden is a thread of an arm64 program, with the program.
type golden struct {
	ELF     []byte
	Regs    [33]uint64 // x0 to x30, sp, pc
	Stack   []byte     // from sp on
	Frames  []string
	Signed  int // return addresses on the stack that carry a code
	Comment string
}

const goldenFile = "testdata/golden.json"

// recordGolden runs testdata/golden.c up to its brk.
func recordGolden(t *testing.T) {
	e, bin, _ := emulate(t, "testdata/golden.c", "-O2", "-static", "-nostdlib", "-mbranch-protection=pac-ret", "-Wl,--build-id=none", "-Wl,-z,max-page-size=4096")
	e.send("c")
	e.toBreak()
	regs := e.registers()
	g := golden{Comment: "go test ./symbolize -run Golden -update; see golden.c", Stack: make([]byte, 256), Signed: 3,
		Frames: []string{"leaf", "unknown_size", "outer", "main", "_start"}}
	for i := range g.Regs {
		g.Regs[i], _ = regs.Get(i)
	}
	var err error
	if g.ELF, err = os.ReadFile(bin); err != nil {
		t.Fatal(err)
	}
	if err := remote.ReadFull(e, g.Stack, regs.SP()); err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(g, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestArm64GoldenStack(t *testing.T) {
	if *update {
		recordGolden(t)
	}
	b, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(t.TempDir(), "golden")
	if err := os.WriteFile(bin, g.ELF, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(g.ELF))
	if err != nil {
		t.Fatal(err)
	}
	var maps remote.Mappings
	for i, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		maps = append(maps, remote.Mapping{Start: remote.Addr(p.Vaddr &^ 4095), End: remote.Addr((p.Vaddr + p.Memsz + 4095) &^ 4095),
			Offset: p.Off &^ 4095, Read: true, Exec: p.Flags&elf.PF_X != 0, Inode: uint64(i + 1), Path: bin})
	}
	sp := remote.Addr(g.Regs[remote.ARM64SP])
	maps = append(maps, remote.Mapping{Start: sp &^ 4095, End: sp&^4095 + 8192, Read: true, Write: true, Path: "[stack]"})
	regs := remote.Regs{Arch: remote.ARM64}
	for i, v := range g.Regs {
		regs.Set(i, v)
	}
	stack := remote.ReaderFunc(func(p []byte, at remote.Addr) (int, error) {
		off, ok := at.Distance(sp)
		if !ok || at < sp || off >= uint64(len(g.Stack)) {
			return 0, &remote.ReadError{At: at, Want: len(p), Err: remote.ErrUnmapped}
		}
		return copy(p, g.Stack[off:]), nil
	})
	img := symbolize.NewImage(maps, open, nil, symbolize.NewCache())
	w := img.Unwind(regs, stack)
	if got := names(img, w); !slices.Equal(got, g.Frames) || w.End != symbolize.Root {
		t.Errorf("%v, want %v: %v, %v", got, g.Frames, w.End, w.Err)
	}
	signed := 0
	for off := 0; off+8 <= len(g.Stack); off += 8 {
		v, err := remote.Uint64(stack, sp+remote.Addr(off))
		if err == nil && v>>48 != 0 && slices.Contains(pcs(w), remote.Addr(v&(1<<32-1))) {
			signed++
		}
	}
	if signed != g.Signed {
		t.Errorf("%d signed return addresses on the stack, want %d: the recording shows nothing", signed, g.Signed)
	}
}
