package symbolize_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/symbolize"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// mappings reads /proc/PID/maps.
func mappings(pid int) (remote.Mappings, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	return parse(string(b)), err
}

func parse(text string) remote.Mappings {
	var out remote.Mappings
	for line := range strings.Lines(text) {
		var m remote.Mapping
		var start, end uint64
		var perms, dev string
		n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d %s", &start, &end, &perms, &m.Offset, &dev, &m.Inode, &m.Path)
		if n < 6 {
			continue
		}
		m.Start, m.End = remote.Addr(start), remote.Addr(end)
		m.Read, m.Write, m.Exec = perms[0] == 'r', perms[1] == 'w', perms[2] == 'x'
		out = append(out, m)
	}
	return out
}

func open(m remote.Mapping) (*os.File, error) { return os.Open(m.Path) }

// sleeper starts a process with nothing but libc in it.
func sleeper() (*exec.Cmd, remote.Mappings, error) {
	c := exec.Command("sleep", "100")
	if err := c.Start(); err != nil {
		return nil, nil, err
	}
	for range 500 {
		maps, err := mappings(c.Process.Pid)
		if err != nil {
			return c, nil, err
		}
		for i := range maps {
			if maps[i].Exec && filepath.Base(maps[i].Path) == "libc.so.6" {
				return c, maps, nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return c, nil, errors.New("libc was not mapped within 5 s")
}

func image(t *testing.T) (*symbolize.Image, remote.Mappings) {
	t.Helper()
	c, maps, err := sleeper()
	if c != nil {
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	}
	if err != nil {
		t.Fatal(err)
	}
	return symbolize.NewImage(maps, open, nil, symbolize.NewCache()), maps
}

func Example() {
	c, maps, err := sleeper()
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	img := symbolize.NewImage(maps, open, nil, symbolize.NewCache())
	at, _, _ := img.Lookup("mremap", nil)

	// A thread that stands at the first instruction of mremap; its stack
	// holds a return address of zero, which is where stacks end.
	regs := remote.Regs{Arch: remote.AMD64}
	regs.SetPC(at)
	regs.SetSP(0x7000)
	stack := remote.ReaderFunc(func(p []byte, _ remote.Addr) (int, error) { clear(p); return len(p), nil })

	trace := img.Symbolize(img.Unwind(regs, stack))
	for i, f := range trace.Frames {
		fmt.Printf("#%d %s in %s\n", i, f.Function, f.Module)
	}
	fmt.Println(trace.End)
	// Output:
	// #0 mremap in libc.so.6
	// root
}

// fakeStack is a stack of words from base on.
func fakeStack(base remote.Addr, words ...uint64) remote.Reader {
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, words)
	mem := b.Bytes()
	return remote.ReaderFunc(func(p []byte, at remote.Addr) (int, error) {
		off, ok := at.Distance(base)
		if !ok || off >= uint64(len(mem)) {
			return 0, &remote.ReadError{At: at, Want: len(p), Err: remote.ErrUnmapped}
		}
		n := copy(p, mem[off:])
		if n < len(p) {
			return n, &remote.ReadError{At: at, Want: len(p), Got: n, Err: remote.ErrUnmapped}
		}
		return n, nil
	})
}

func TestUnwindEndsWhereTheStackDoes(t *testing.T) {
	img, maps := image(t)
	const base = remote.Addr(0x10000)
	entry, _, ok := img.Lookup("mremap", nil)
	if !ok {
		t.Fatal("libc has no mremap")
	}
	var data, anon remote.Addr
	for i := range maps {
		if maps[i].Write && maps[i].Inode != 0 {
			data = maps[i].Start
		}
	}
	anon = 0xdead0000
	for _, tt := range []struct {
		name   string
		stack  remote.Reader
		frames int
		end    symbolize.End
		err    error
	}{
		{"at a zero return address", fakeStack(base, 0), 1, symbolize.Root, nil},
		{"at an unreadable stack", fakeStack(base+0x1000, 0), 1, symbolize.Truncated, remote.ErrUnmapped},
		{"at a return address in nothing", fakeStack(base, uint64(anon), 0, 0), 2, symbolize.Truncated, symbolize.ErrNoUnwindInfo},
		{"at a return address in data", fakeStack(base, uint64(data), 0, 0), 2, symbolize.Truncated, symbolize.ErrNoUnwindInfo},
		{"after another frame of the same function", fakeStack(base, uint64(entry)+1, 0), 2, symbolize.Root, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			regs := remote.Regs{Arch: remote.AMD64}
			regs.SetPC(entry)
			regs.SetSP(base)
			regs.Set(remote.RBP, 0)
			w := img.Unwind(regs, tt.stack)
			if len(w.Frames) != tt.frames || w.End != tt.end || !errors.Is(w.Err, tt.err) {
				t.Errorf("%d frames, %s, %v; want %d, %s, %v", len(w.Frames), w.End, w.Err, tt.frames, tt.end, tt.err)
			}
			if w.Frames[0].How != symbolize.HowEntry || !w.Frames[0].Exact {
				t.Errorf("the innermost frame is %+v", w.Frames[0])
			}
		})
	}
}

// behindCall returns an address in libc that a call would return to.
func behindCall(t *testing.T, maps remote.Mappings) remote.Addr {
	t.Helper()
	for _, m := range maps {
		if !m.Exec || filepath.Base(m.Path) != "libc.so.6" {
			continue
		}
		b, err := os.ReadFile(m.Path)
		if err != nil {
			t.Fatal(err)
		}
		size := int(m.End - m.Start)
		code := b[m.Offset:][:size]
		for i := range size - 5 {
			if to := i + 5 + int(int32(binary.LittleEndian.Uint32(code[i+1:]))); code[i] == 0xe8 && to > 0 && to < size {
				return m.Start + remote.Addr(i) + 5
			}
		}
	}
	t.Fatal("libc has no call in it")
	return 0
}

func TestFramePointersAreFollowedOnlyWhereTheyLeadUp(t *testing.T) {
	_, maps := image(t)
	ret := behindCall(t, maps)
	var jit remote.Addr = 0x7fff00000000 // code of nobody's: no table describes it
	maps = append(maps, remote.Mapping{Start: jit, End: jit + 4096, Exec: true, Read: true})
	img := symbolize.NewImage(maps, open, nil, symbolize.NewCache())
	const base = remote.Addr(0x10000)
	for _, tt := range []struct {
		name string
		rbp  uint64
		ok   bool
	}{
		{"a frame above the stack pointer", uint64(base) + 16, true},
		{"a frame below it", uint64(base) - 16, false},
		{"a crooked one", uint64(base) + 3, false},
		{"a frame that is its own caller's", uint64(base) + 48, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stack := fakeStack(base, 7, 7, uint64(base)+64, uint64(ret), 0, 0, uint64(base)+48, uint64(ret), 0, 0)
			regs := remote.Regs{Arch: remote.AMD64}
			regs.SetPC(jit + 100)
			regs.SetSP(base)
			regs.Set(remote.RBP, tt.rbp)
			w := img.Unwind(regs, stack)
			if got := len(w.Frames) > 1 && w.Frames[1].How == symbolize.HowFramePointer; got != tt.ok {
				t.Errorf("followed %v, want %v: %d frames, %v", got, tt.ok, len(w.Frames), w.Err)
			}
		})
	}
}

func TestAnAddressOutsideEverySymbolStaysUnnamed(t *testing.T) {
	img, maps := image(t)
	regs := remote.Regs{Arch: remote.AMD64}
	for i := range maps {
		if maps[i].Exec && filepath.Base(maps[i].Path) == "sleep" {
			regs.SetPC(maps[i].Start + 0x10) // .init or the PLT's head
		}
	}
	tr := img.Symbolize(symbolize.Walk{Frames: []symbolize.PhysicalFrame{{PC: regs.PC(), Exact: true, How: symbolize.HowEntry}}})
	if f := tr.Frames[0]; f.Function != "" || f.Module != "sleep" || f.Offset == 0 {
		t.Errorf("%+v; want no name, the module, and an offset", f)
	}
}

func TestAModuleThatCannotBeOpenedSpoilsNoOther(t *testing.T) {
	_, maps := image(t)
	no := errors.New("permission denied")
	img := symbolize.NewImage(maps, func(m remote.Mapping) (*os.File, error) {
		if filepath.Base(m.Path) == "sleep" {
			return nil, no
		}
		return os.Open(m.Path)
	}, nil, symbolize.NewCache())
	if _, err := img.ModulesNamed(func(string) bool { return true }); !errors.Is(err, no) {
		t.Errorf("the error is lost: %v", err)
	}
	if libc, err := img.Libc(); err != nil || libc.Name != "libc.so.6" {
		t.Errorf("libc: %v, %v", libc.Module, err)
	}
}

// TestSymbolsAgreeWithNM compares look-ups by name with nm's table.
func TestSymbolsAgreeWithNM(t *testing.T) {
	img, maps := image(t)
	path, bias := "", remote.Addr(0)
	for i := range maps {
		if filepath.Base(maps[i].Path) == "libc.so.6" && path == "" {
			path, bias = maps[i].Path, maps[i].Start
		}
	}
	out, err := exec.Command("nm", "-D", "--defined-only", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(out)) {
		w := strings.Fields(line)
		if len(w) != 3 || w[1] != "T" && w[1] != "W" {
			continue
		}
		name, version, _ := strings.Cut(w[2], "@")
		if strings.HasPrefix(version, "GLIBC_") {
			continue // an old version of a function that has a newer one
		}
		want, err := strconv.ParseUint(w[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		got, _, ok := img.Lookup(name, func(b string) bool { return b == "libc.so.6" })
		if !ok || got != bias+remote.Addr(want) {
			t.Errorf("%s is at %v (%v), nm says %v", name, got, ok, bias+remote.Addr(want))
		}
		n++
	}
	if n < 1000 {
		t.Errorf("only %d symbols were compared", n)
	}
}
