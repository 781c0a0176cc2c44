package objfile

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"
)

const (
	// chdrSize is the size of an Elf64_Chdr: type, padding, uncompressed size,
	// alignment (System V gABI, "Section Compression").
	chdrSize = 24
	// inflateStep is how much more than asked for is inflated, in bytes.
	inflateStep = 64 << 10
)

// inflating is a section of which only the first done bytes are there yet. Those
// do not change any more, so they can be read while more are made.
type inflating struct {
	mu   sync.Mutex
	z    io.Reader
	b    []byte
	done int
	err  error
}

// to inflates the first n bytes at least, and returns the whole section's memory.
func (in *inflating) to(n int) ([]byte, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if n = min(n, len(in.b)); n > in.done && in.err == nil {
		n = min(n+inflateStep, len(in.b))
		var got int
		got, in.err = io.ReadFull(in.z, in.b[in.done:n])
		if in.done += got; in.done == len(in.b) {
			in.z = nil
		}
	}
	if in.err != nil && n > in.done {
		return nil, in.err
	}
	return in.b, nil
}

// SectionTo is Section for a reader that needs no more than the first n bytes: of
// what is returned, which is as long as the section, only those are valid.
func (f *File) SectionTo(name string, n int) ([]byte, error) {
	s := f.raw(name)
	if s == nil || s.Type == elf.SHT_NOBITS || !compressed(s) || f.check(s) != nil {
		return f.Section(name)
	}
	in, err := f.inflate(s, f.slot(name))
	if in == nil && err == nil {
		return f.Section(name)
	}
	var b []byte
	if err == nil {
		b, err = in.to(n)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: section %s: %w: %v", f.Name, name, ErrMalformed, err)
	}
	return b, nil
}

// inflate begins to inflate a section whose size was checked; nil without an error
// when it is not compressed with zlib. That is what distributions do to debug
// files, and klauspost's package takes less time for it than the standard library's.
func (f *File) inflate(s *elf.Section, c *section) (*inflating, error) {
	c.begin.Do(func() {
		if s.FileSize < chdrSize {
			return
		}
		raw := make([]byte, s.FileSize)
		if _, c.beginErr = f.r.ReadAt(raw, int64(s.Offset)); c.beginErr != nil {
			return
		}
		if elf.CompressionType(f.elf.ByteOrder.Uint32(raw)) != elf.COMPRESS_ZLIB {
			return
		}
		z, err := zlib.NewReader(bytes.NewReader(raw[chdrSize:]))
		if err != nil {
			c.beginErr = err
			return
		}
		c.inflated = &inflating{z: z, b: make([]byte, s.Size)}
	})
	return c.inflated, c.beginErr
}

// contents reads a whole section whose size was checked.
func (f *File) contents(s *elf.Section, c *section) ([]byte, error) {
	if !compressed(s) {
		return s.Data()
	}
	in, err := f.inflate(s, c)
	switch {
	case err != nil:
		return nil, err
	case in == nil:
		return s.Data()
	}
	return in.to(len(in.b))
}
