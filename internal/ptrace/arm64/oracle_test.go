package arm64

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Where testdata/oracle.c puts things.
const (
	oracleCode  = 0x2000000
	oracleStack = 0x3000000
	oraclePage  = 0x10000
)

// given and left are what the oracle reads and writes for a case.
type given struct {
	At, Next, Taken uint64
	X               [31]uint64
	SP, NZCV        uint64
	Code            [MaxSlot / Len]uint32
}

type left struct {
	X                [31]uint64
	SP, NZCV, Landed uint64
	Changes          uint64
	Where, What      [4]uint64
}

// instructions are what compilers and assemblers put first, in each form that
// is emulated, and some that only a slot can run.
var instructions = []string{
	"nop", "bti c", "bti j", "paciasp", "pacibsp", "xpaclri",
	"stp x29, x30, [sp, #-16]!", "stp x29, x30, [sp, #-512]!", "stp x19, x20, [sp, #504]!", "stp xzr, x1, [sp, #-32]!",
	"stp x29, x30, [sp, #16]", "stp x19, xzr, [sp, #-512]", "stp x20, x21, [sp]",
	"str x30, [sp, #-16]!", "str x19, [sp, #-256]!", "str x30, [sp, #240]!", "str x0, [sp, #8]", "str xzr, [sp, #1024]",
	"stp w19, w20, [sp, #-32]!", "str w0, [sp, #12]", "stp d8, d9, [sp, #-64]!", "sub sp, sp, #0x30", "sub sp, sp, #1, lsl #12",
	"add x29, sp, #0", "mov x29, sp", "mov sp, x29", "add sp, sp, #64", "sub w3, w4, #17", "add x3, x4, #0xfff, lsl #12",
	"subs x1, x2, #1", "subs w1, w2, #0xfff", "adds x1, x2, #3, lsl #12", "adds w1, wsp, #3", "cmp x0, #0", "cmp w0, #10", "cmn x5, #1", "cmn w5, #1", "cmp sp, #16",
	"mov x8, #222", "mov w8, #0xde", "mov x0, #-1", "mov w0, #-22", "movz x5, #0xbeef, lsl #48", "movk x5, #0xbeef, lsl #16", "movk w5, #0xbeef, lsl #16", "movn w7, #1, lsl #16",
	"tst x5, #0xfff", "tst w5, #0xfff", "ands x1, x2, #0x7fffffffffffffff", "and sp, x9, #0xfffffffffffffff0", "and x9, x9, #0x5555555555555555",
	"orr w1, w2, #0x80000001", "orr x1, xzr, #0xff00ff00ff00ff00", "eor x1, x2, #1", "eor w1, w2, #0xfffffffe", "and w1, w2, #0x0f0f0f0f",
	"mov x19, x0", "mov w19, w0", "mov xzr, x0", "mvn x1, x2", "mvn w1, w2, lsr #3", "and x1, x2, x3, asr #63", "bic w1, w2, w3, ror #31", "orn x1, x2, x3, ror #1",
	"eor x1, x2, x3, lsl #12", "eon w1, w2, w3", "ands x1, x2, x3", "bics w1, w2, w3, asr #31", "tst x1, x1", "tst w1, w2, lsl #4",
	"add x1, x2, x3", "add w1, w2, w3, lsl #3", "sub x1, x2, x3, asr #2", "adds x1, x2, x3, lsr #1", "subs w1, w2, w3, asr #31", "cmp x0, x1", "cmp w0, w1", "neg x1, x2", "negs w1, w2", "cmn w2, w3",
	"adrp x0, .+0x200000", "adrp x16, .-0x7000", "adr x1, .+8", "adr x17, .-1000",
	"b .+64", "bl .+64", "cbz x0, .+64", "cbnz x0, .+64", "cbz w1, .+64", "cbnz w1, .+64", "cbz x16, .+64", "tbz x2, #63, .+64", "tbnz w2, #3, .+64", "tbz w17, #0, .+64", "b .-64", "cbz x3, .-64",
	"b.eq .+64", "b.ne .+64", "b.cs .+64", "b.cc .+64", "b.mi .+64", "b.pl .+64", "b.vs .+64", "b.vc .+64", "b.hi .+64", "b.ls .+64", "b.ge .+64", "b.lt .+64", "b.gt .+64", "b.le .+64", "b.al .+64",
	"sxtw x1, w1", "lsl x1, x2, #3", "ubfx x1, x2, #4, #8", "madd x1, x2, x3, x4", "csel x0, x1, x2, ge", "ccmp x0, #3, #4, ne", "fmov d0, x1", "mov x16, x30", "mov x17, x30", "ldr x3, [sp, #2048]",
}

// assemble gives the encoding of each instruction.
func assemble(t *testing.T, text []string) []uint32 {
	t.Helper()
	dir := t.TempDir()
	src, obj, bin := filepath.Join(dir, "a.s"), filepath.Join(dir, "a.o"), filepath.Join(dir, "a.bin")
	if err := os.WriteFile(src, []byte(".arch armv8.5-a\n"+strings.Join(text, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "aarch64-linux-gnu-as", "-o", obj, src)
	run(t, nil, "aarch64-linux-gnu-objcopy", "-O", "binary", obj, bin)
	b, err := os.ReadFile(bin)
	if err != nil || len(b) != Len*len(text) {
		t.Fatalf("%d instructions are %d bytes, %v", len(text), len(b), err)
	}
	out := make([]uint32, len(text))
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(b[i*Len:])
	}
	return out
}

// need skips without the tools, which is not allowed in continuous integration.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is missing: scripts/test installs it", tool)
			}
			t.Skipf("%s is missing (Debian: gcc-aarch64-linux-gnu, qemu-user-static)", tool)
		}
	}
}

func run(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	c := exec.Command(args[0], args[1:]...)
	c.Stdin = bytes.NewReader(in)
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", args[0], err, errs.Bytes())
	}
	return out
}

// trial is one case for the oracle and what is expected of it.
type trial struct {
	name    string
	in      given
	want    Regs
	stores  map[uint64]uint64
	scratch int // the register that a slot may spoil, or -1
}

// Each emulation, and each slot, must leave what the processor leaves:
// registers, flags, memory, and where it goes on.
func TestEmulationAgreesWithTheProcessor(t *testing.T) {
	need(t, "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-as", "aarch64-linux-gnu-objcopy", "qemu-aarch64-static")
	oracle := filepath.Join(t.TempDir(), "oracle")
	run(t, nil, "aarch64-linux-gnu-gcc", "-O1", "-static", "-nostdlib", "-ffreestanding", "-Wl,--defsym=code=0x2000000", "-o", oracle, "testdata/oracle.c")
	words := assemble(t, instructions)
	var trials []trial
	for i, w := range words {
		in, err := Decode(binary.LittleEndian.AppendUint32(nil, w))
		if err != nil {
			t.Errorf("%s: %v", instructions[i], err)
			continue
		}
		for round := range 40 {
			g := random(round)
			if to := in.target(g.At); in.kind >= jump {
				g.Taken = to
			}
			want, stores := g.before(), map[uint64]uint64{}
			direct := trial{name: instructions[i], in: g, scratch: -1}
			direct.in.Code[0] = w
			if in.Emulated() {
				err := in.Emulate(&want, func(at, v uint64) error { stores[at] = v; return nil })
				if err != nil {
					t.Fatalf("%s: %v", instructions[i], err)
				}
				direct.want, direct.stores = want, stores
			}
			trials = append(trials, direct, slotted(t, in, direct))
		}
	}
	var cases bytes.Buffer
	for i := range trials {
		_ = binary.Write(&cases, binary.LittleEndian, &trials[i].in)
	}
	results := bytes.NewReader(run(t, cases.Bytes(), "qemu-aarch64-static", oracle))
	var last left
	for i := range trials {
		var got left
		if err := binary.Read(results, binary.LittleEndian, &got); err != nil {
			t.Fatalf("%s: the oracle ended: %v", trials[i].name, err)
		}
		tr := &trials[i]
		if tr.stores == nil && i%2 == 1 {
			// Not emulated: the slot is compared with the instruction itself.
			tr.want, tr.stores = last.after(tr)
		}
		if tr.stores != nil {
			compare(t, tr, &got)
		}
		last = got
	}
	t.Logf("%d instructions, %d comparisons", len(words), len(trials))
}

func random(round int) given {
	edge := []uint64{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 63, 1<<63 - 1, ^uint64(0), 8, 0xfff, 0x1000}
	g := given{At: oracleCode + 0x4000 + 8*uint64(rand.IntN(64)), NZCV: uint64(rand.Uint32()) & StatusFlags}
	for i := range g.X {
		if g.X[i] = rand.Uint64(); rand.IntN(2) == 0 {
			g.X[i] = edge[rand.IntN(len(edge))]
		}
	}
	if round%4 == 0 {
		g.X[2], g.X[1] = g.X[3], g.X[0]
	}
	g.X[9] = oracleStack + oraclePage/2 // what instructions here move to sp
	g.X[29] = oracleStack + oraclePage/4
	g.SP = oracleStack + oraclePage/2 + 16*uint64(rand.IntN(32))
	g.Next, g.Taken = g.At+Len, g.At+64
	return g
}

func (g *given) before() Regs {
	return Regs{X: g.X, SP: g.SP, PC: g.At, Pstate: g.NZCV}
}

// slotted runs the same instruction in a slot, which leaves for the addresses
// behind the original.
func slotted(t *testing.T, in *Insn, direct trial) trial {
	t.Helper()
	tr := direct
	tr.name += ", in a slot"
	slot, err := in.Slot(direct.in.At)
	if err != nil || len(slot) > MaxSlot {
		t.Fatalf("%s: %d bytes, %v", tr.name, len(slot), err)
	}
	tr.in.Code = [MaxSlot / Len]uint32{}
	for i := 0; i < len(slot); i += Len {
		tr.in.Code[i/Len] = binary.LittleEndian.Uint32(slot[i:])
	}
	tr.in.At = oracleCode + 0x8000
	reg, _ := in.scratch()
	tr.scratch = int(reg)
	return tr
}

func (l *left) after(tr *trial) (Regs, map[uint64]uint64) {
	stores := map[uint64]uint64{}
	for i := range min(l.Changes, 4) {
		stores[l.Where[i]] = l.What[i]
	}
	r := Regs{X: l.X, SP: l.SP, PC: tr.in.Next, Pstate: l.NZCV}
	if l.Landed == 1 {
		r.PC = tr.in.Taken
	}
	return r, stores
}

func compare(t *testing.T, tr *trial, l *left) {
	t.Helper()
	got, stores := l.after(tr)
	want := tr.want
	if tr.scratch >= 0 {
		got.X[tr.scratch] = want.X[tr.scratch]
	}
	if got != want {
		t.Errorf("%s:\nbefore %+v\ngot    %+v\nwant   %+v", tr.name, tr.in.before(), got, want)
	}
	// The page's pattern may happen to be what is stored.
	for at, v := range tr.stores {
		if ^((at-oracleStack)/8) != v && stores[at] != v {
			t.Errorf("%s: stores %#x at %#x, emulated %#x", tr.name, stores[at], at, v)
		}
		delete(stores, at)
	}
	if len(stores) > 0 || l.Changes > 2 {
		t.Errorf("%s: also stores %s", tr.name, fmt.Sprint(stores))
	}
}
