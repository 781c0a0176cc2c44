package symbolize_test

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// sysroot is where Debian's cross compiler has its C library.
const sysroot = "/usr/aarch64-linux-gnu"

// emulated is an arm64 program that an emulator runs for us, step by step.
type emulated struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	img  *symbolize.Image
	// blocks of memory that were read since the last step
	blocks map[remote.Addr][]byte
}

func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is missing: scripts/test installs it", tool)
			}
			t.Skipf("%s is missing (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user-static)", tool)
		}
	}
}

// emulate compiles a program and starts it, stopped, in the emulator.
func emulate(t *testing.T, source string, flags ...string) (e *emulated, bin string, stdout *bufio.Reader) {
	t.Helper()
	need(t, "aarch64-linux-gnu-gcc", "qemu-aarch64-static")
	dir := t.TempDir()
	e = &emulated{t: t, blocks: make(map[remote.Addr][]byte)}
	bin = filepath.Join(dir, "program")
	args := append(slices.Clone(flags), "-o", bin, source)
	if out, err := exec.Command("aarch64-linux-gnu-gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("aarch64-linux-gnu-gcc: %v\n%s", err, out)
	}
	sock := filepath.Join(dir, "gdb")
	c := exec.Command("qemu-aarch64-static", "-cpu", "max,pauth-impdef=on", "-L", sysroot, "-g", sock, bin)
	c.Stderr = os.Stderr
	c.Env = append(os.Environ(), "LD_BIND_NOW=1")
	pipe, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if e.conn, err = net.Dial("unix", sock); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = e.conn.Close() })
	e.in = bufio.NewReader(e.conn)
	e.ask("?")
	return e, bin, bufio.NewReader(pipe)
}

// toBreak runs on to a brk.
func (e *emulated) toBreak() {
	if a := e.answer(); !strings.HasPrefix(a, "T05") {
		e.t.Fatalf("%q instead of the brk", a)
	}
}

// scenario runs testdata/aarch64.c up to its brk.
func scenario(t *testing.T, flags ...string) *emulated {
	t.Helper()
	e, _, stdout := emulate(t, "testdata/aarch64.c", flags...)
	e.send("c")
	var text strings.Builder
	for {
		line, err := stdout.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\n" {
			break
		}
		text.WriteString(line)
	}
	e.toBreak()
	e.img = symbolize.NewImage(parse(text.String()), open, nil, symbolize.NewCache())
	all := e.hexed("g")
	pc := all[remote.ARM64PC*8:]
	binary.LittleEndian.PutUint64(pc, binary.LittleEndian.Uint64(pc)+4)
	if a := e.ask("G" + hex.EncodeToString(all)); a != "OK" {
		t.Fatalf("set the program counter: %q", a)
	}
	return e
}

// send writes a packet of the protocol that gdb speaks with its stubs.
func (e *emulated) send(packet string) {
	sum := byte(0)
	for _, c := range []byte(packet) {
		sum += c
	}
	if _, err := fmt.Fprintf(e.conn, "$%s#%02x", packet, sum); err != nil {
		e.t.Fatal(err)
	}
}

func (e *emulated) answer() string {
	if err := e.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		e.t.Fatal(err)
	}
	if _, err := e.in.ReadString('$'); err != nil {
		e.t.Fatal(err)
	}
	s, err := e.in.ReadString('#')
	if err == nil {
		_, err = e.in.Discard(2)
	}
	if err == nil {
		_, err = e.conn.Write([]byte("+"))
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return strings.TrimSuffix(s, "#")
}

func (e *emulated) ask(packet string) string {
	e.send(packet)
	return e.answer()
}

// hexed decodes what a stub answers.
func (e *emulated) hexed(packet string) []byte {
	b, err := hex.DecodeString(e.ask(packet))
	if err != nil {
		e.t.Fatalf("%s: %v", packet, err)
	}
	return b
}

// step runs one instruction and returns the signal that arrived instead of it,
// or 5 (SIGTRAP) for none. deliver is one that is to be handed on.
func (e *emulated) step(deliver int) int {
	packet := "vCont;s:p1.-1"
	if deliver != 0 {
		packet = fmt.Sprintf("vCont;S%02x:p1.-1", deliver)
	}
	clear(e.blocks)
	a := e.ask(packet)
	sig := 0
	if _, err := fmt.Sscanf(a, "T%02x", &sig); err != nil {
		e.t.Fatalf("the program ended: %q", a)
	}
	return sig
}

// registers reads x0 to x30, sp and pc, which is DWARF's order.
func (e *emulated) registers() remote.Regs {
	b := e.hexed("g")
	r := remote.Regs{Arch: remote.ARM64}
	for i := range 33 {
		r.Set(i, binary.LittleEndian.Uint64(b[i*8:]))
	}
	return r
}

// blockSize is how much memory is read at once, in bytes.
const blockSize = 512

// ReadMemory implements remote.Reader.
func (e *emulated) ReadMemory(p []byte, at remote.Addr) (int, error) {
	got := 0
	for got < len(p) {
		a := at + remote.Addr(got)
		from := a &^ (blockSize - 1)
		if e.blocks[from] == nil {
			b, err := hex.DecodeString(e.ask(fmt.Sprintf("m%x,%x", uint64(from), blockSize)))
			if err != nil || len(b) != blockSize {
				return got, &remote.ReadError{At: at, Want: len(p), Got: got, Err: remote.ErrUnmapped}
			}
			e.blocks[from] = b
		}
		got += copy(p[got:], e.blocks[from][a-from:])
	}
	return got, nil
}

// truth follows what the instructions do to the stack of calls.
type truth struct {
	base []remote.Addr // the callers of main
	back []remote.Addr // return addresses and interrupted places, innermost last
	// trampolines are what the signal handlers that run return to.
	trampolines []remote.Addr
	returned    bool // from a signal handler, just now
}

func (tr *truth) frames(pc remote.Addr) []remote.Addr {
	out := []remote.Addr{pc}
	for _, a := range slices.Backward(tr.back) {
		out = append(out, a)
	}
	return append(out, tr.base...)
}

func (tr *truth) pop() { tr.back = tr.back[:len(tr.back)-1] }

const svc = 0xd4000001

// stepped notes that an instruction was run at pc. It reports when main returned.
func (tr *truth) stepped(insn uint32, pc remote.Addr) bool {
	n := len(tr.trampolines)
	tr.returned = false
	switch {
	case insn>>26 == 0x25, insn&0xfffffc1f == 0xd63f0000: // bl, blr
		tr.back = append(tr.back, pc+4)
	case insn == svc && n > 0 && pc == tr.trampolines[n-1]+4: // rt_sigreturn
		tr.returned = true
		tr.trampolines = tr.trampolines[:n-1]
		tr.pop()
	case insn&0xfffffc1f == 0xd65f0000, insn&0xfffffbff == 0xd65f0bff: // ret, retaa, retab
		if len(tr.back) == 0 {
			return true
		}
		tr.pop()
	}
	return false
}

// signalled notes that a handler was entered, to which the kernel has given lr.
func (tr *truth) signalled(at, lr remote.Addr) {
	tr.trampolines = append(tr.trampolines, lr)
	tr.back = append(tr.back, at, lr)
}

func pcs(w symbolize.Walk) []remote.Addr {
	var out []remote.Addr
	for i := range w.Frames {
		out = append(out, w.Frames[i].PC)
	}
	return out
}

func names(img *symbolize.Image, w symbolize.Walk) []string {
	var out []string
	for _, f := range img.Symbolize(w).Frames {
		out = append(out, f.Function)
	}
	return out
}

// At each instruction, the frames must be those of the calls that were made.
func TestArm64UnwindsAtEachInstruction(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags []string
	}{
		{"optimized", []string{"-O2"}},
		{"not optimized", []string{"-O0"}},
		{"signed return addresses", []string{"-O2", "-mbranch-protection=standard"}},
		{"signed return addresses, also of leaves", []string{"-O1", "-mbranch-protection=pac-ret+leaf"}},
		{"static", []string{"-O2", "-static"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := scenario(t, c.flags...)
			regs := e.registers()
			w := e.img.Unwind(regs, e)
			if w.End != symbolize.Root || w.Err != nil {
				t.Fatalf("in main: %v, %v, %v", names(e.img, w), w.End, w.Err)
			}
			if n := names(e.img, w); n[0] != "main" || n[len(n)-1] != "_start" {
				t.Fatalf("in main: %v", n)
			}
			steps, seen := e.compare(&truth{base: pcs(w)[1:]}, regs)
			for _, f := range []string{"leaf", "handler", "interrupted_leaf", "compare", "large", "unknown_size", "qsort"} {
				if !seen[f] {
					t.Errorf("%s was never the innermost function", f)
				}
			}
			t.Logf("%d instructions", steps)
		})
	}
}

func (e *emulated) insn(pc remote.Addr) uint32 {
	v, err := remote.Uint32(e, pc)
	if err != nil {
		e.t.Fatal(err)
	}
	return v
}

// maxSteps bounds the comparison; the program takes some 6,000.
const maxSteps = 50_000

// compare steps to the end of main, and unwinds before each step.
func (e *emulated) compare(tr *truth, regs remote.Regs) (steps int, seen map[string]bool) {
	seen = make(map[string]bool)
	sig := 0
	for ; steps < maxSteps; steps++ {
		pc := regs.PC()
		w := e.img.Unwind(regs, e)
		got, want := pcs(w), tr.frames(pc)
		if !slices.Equal(got, want) || w.End != symbolize.Root {
			e.t.Fatalf("step %d: %v\ngot  %v\nwant %v\n%v, %v", steps, names(e.img, w), got, want, w.End, w.Err)
		}
		if f := e.img.Symbolize(symbolize.Walk{Frames: w.Frames[:1]}).Frames[0].Function; f != "" {
			seen[f] = true
		}
		insn := e.insn(pc)
		deliver := sig
		sig = e.step(deliver)
		regs = e.registers()
		switch {
		case deliver != 0:
			lr, _ := regs.Get(remote.ARM64LR)
			tr.signalled(pc, remote.Addr(lr)&(1<<39-1))
		case tr.stepped(insn, pc):
			return steps, seen
		case insn == svc && sig == 5 && !tr.returned && regs.PC() != pc+4:
			// The emulator does not stop behind a system call, but one further.
			tr.stepped(e.insn(pc+4), pc+4)
		}
		if sig == 5 { // SIGTRAP: the step
			sig = 0
		}
	}
	e.t.Fatalf("main does not return within %d instructions", steps)
	return steps, seen
}
