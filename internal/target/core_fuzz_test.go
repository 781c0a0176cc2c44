package target

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// note is one note as the kernel writes it.
func note(name string, typ uint32, desc []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, typ)
	for _, part := range [][]byte{append([]byte(name), 0), desc} {
		b = append(b, part...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	return b
}

// smallCore is a core of one thread with one page of memory and one mapped file.
func smallCore() []byte {
	status := make([]byte, 336)
	binary.LittleEndian.PutUint16(status[12:], 11)
	binary.LittleEndian.PutUint32(status[32:], 4242)
	binary.LittleEndian.PutUint64(status[112+16*8:], 0x401000)
	binary.LittleEndian.PutUint64(status[112+19*8:], 0x7000)
	info := make([]byte, 136)
	binary.LittleEndian.PutUint32(info[24:], 4242)
	copy(info[56:], "php-fpm: pool www")
	var files bytes.Buffer
	for _, v := range []uint64{1, 4096, 0x400000, 0x402000, 0} {
		_ = binary.Write(&files, binary.LittleEndian, v)
	}
	files.WriteString("/bin/true\x00")
	notes := note("CORE", ntPRStatus, status)
	notes = append(notes, note("CORE", ntPRPSInfo, info)...)
	notes = append(notes, note("CORE", ntFile, files.Bytes())...)
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_CORE), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	_ = binary.Write(&b, binary.LittleEndian, h)
	at := uint64(64 + 2*56)
	_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: at, Filesz: uint64(len(notes))})
	_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: 6, Off: at + uint64(len(notes)), Vaddr: 0x7000, Filesz: 4096, Memsz: 8192})
	b.Write(notes)
	b.Write(bytes.Repeat([]byte("core"), 1024))
	return b.Bytes()
}

func TestASmallCoreIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "core")
	if err := os.WriteFile(path, smallCore(), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := OpenCore(path, CoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(c.Threads) != 1 || c.Threads[0].TID != 4242 || c.Threads[0].Regs.PC() != 0x401000 || c.Threads[0].Regs.SP() != 0x7000 {
		t.Errorf("threads %+v", c.Threads)
	}
	if c.PID != 4242 || c.Cmdline() != "php-fpm: pool www" || c.Signal.Describe() != "signal 11 (segmentation fault)" || len(c.Maps) != 2 {
		t.Errorf("%d %q %s %+v", c.PID, c.Cmdline(), c.Signal.Describe(), c.Maps)
	}
	b := make([]byte, 16)
	if n, err := c.ReadMemory(b, 0x7ff8); n != 8 || err == nil || string(b[:8]) != "corecore" {
		t.Errorf("over the end of what was written: %d, %v, %q", n, err, b)
	}
}

// FuzzCore: whatever a core says, opening and reading it ends, with mappings in
// order and no more bytes than were asked for.
func FuzzCore(f *testing.F) {
	f.Add(smallCore())
	f.Add(smallCore()[:200])
	f.Add([]byte(elf.ELFMAG))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "core")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := OpenCore(path, CoreOptions{Sysroot: t.TempDir()})
		if err != nil {
			return
		}
		defer c.Close()
		last := remote.Addr(0)
		for i := range c.Maps {
			m := &c.Maps[i]
			if m.Start < last || m.End <= m.Start {
				t.Fatalf("mappings are not in order: %+v", c.Maps)
			}
			last = m.End
			for _, at := range []remote.Addr{m.Start, m.End - 1, m.Start - 1} {
				buf := make([]byte, 64)
				if n, err := c.ReadMemory(buf, at); n > len(buf) || n < len(buf) && err == nil {
					t.Fatalf("%d bytes, %v", n, err)
				}
			}
		}
	})
}
