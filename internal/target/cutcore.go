package target

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrCutCore is returned for a core file that ends too early to tell anything.
var ErrCutCore = errors.New("the core file is cut off")

// CutOff is err with its likely reason, if the core ends too early.
func (c *Core) CutOff(err error) error {
	if err == nil || c.Have >= c.Want {
		return err
	}
	return fmt.Errorf("%s: %w: %d of %d bytes are there, too few to read it (a full disk, or ulimit -c); it failed with: %w", c.Name, ErrCutCore, c.Have, c.Want, err)
}

// withoutSections is an ELF file of size bytes without its section headers, if they are
// beyond its end. gdb writes some at the end of a core, nothing needs them, and of one
// that is cut off they are what is missing first.
func withoutSections(f io.ReaderAt, size uint64) io.ReaderAt {
	const shoff, shentsize, shnum, end = 40, 58, 60, 64 // of Elf64_Ehdr; e_shstrndx is last
	head := make([]byte, end)
	if _, err := f.ReadAt(head, 0); err != nil || head[elf.EI_CLASS] != byte(elf.ELFCLASS64) {
		return f
	}
	at := binary.LittleEndian.Uint64(head[shoff:])
	table := uint64(binary.LittleEndian.Uint16(head[shentsize:])) * uint64(binary.LittleEndian.Uint16(head[shnum:]))
	if at <= size && table <= size-at {
		return f
	}
	clear(head[shoff : shoff+8])
	clear(head[shnum:])
	return &overlaid{f, head}
}

// overlaid is a file that begins with other bytes.
type overlaid struct {
	io.ReaderAt
	head []byte
}

func (o *overlaid) ReadAt(p []byte, at int64) (int, error) {
	n, err := o.ReaderAt.ReadAt(p, at)
	if at < int64(len(o.head)) {
		copy(p[:n], o.head[at:])
	}
	return n, err
}
