package objfile

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"maps"
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
	open func() (io.Reader, error) // the stream, from its start
	z    io.Reader                 // nil until it is needed
	at   int                       // how far z has been read
	b    []byte
	done int
	kept func() []byte // what was inflated at an earlier time; nil when that was asked
	was  int           // how much that was
	err  error
}

// to inflates the first n bytes at least, and returns the whole section's memory.
func (in *inflating) to(n int) ([]byte, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n = min(n, len(in.b))
	if n > in.done && in.kept != nil {
		if k := in.kept(); len(k) <= len(in.b) {
			in.was = copy(in.b, k)
			in.done = in.was
		}
		in.kept = nil
	}
	if n > in.done && in.err == nil {
		in.err = in.more(min(n+inflateStep, len(in.b)))
	}
	if in.err != nil && n > in.done {
		return nil, in.err
	}
	return in.b, nil
}

// more inflates up to n.
func (in *inflating) more(n int) (err error) {
	if in.z == nil {
		if in.z, err = in.open(); err != nil {
			return err
		}
	}
	if skip := int64(in.done - in.at); skip > 0 {
		if _, err := io.CopyN(io.Discard, in.z, skip); err != nil {
			return err
		}
	}
	got, err := io.ReadFull(in.z, in.b[in.done:n])
	in.done += got
	if in.at = in.done; in.done == len(in.b) {
		in.z = nil
	}
	return err
}

// KeepInflated has kept asked for what was inflated of a compressed section at an
// earlier time: its first bytes, of any number. It must be the same file's. Call
// it before sections are read.
func (f *File) KeepInflated(kept func(section string) []byte) { f.kept = kept }

// EachInflated visits the compressed sections of which more was inflated than was
// kept, with what there is of them.
func (f *File) EachInflated(visit func(section string, b []byte)) {
	f.mu.Lock()
	slots := maps.Clone(f.data)
	f.mu.Unlock()
	for name, c := range slots {
		in := c.inflated.Load()
		if in == nil {
			continue
		}
		in.mu.Lock()
		if in.done > in.was && in.err == nil {
			visit(name, in.b[:in.done:in.done])
		}
		in.mu.Unlock()
	}
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
		var chdr [chdrSize]byte
		if _, c.beginErr = f.r.ReadAt(chdr[:], int64(s.Offset)); c.beginErr != nil {
			return
		}
		if elf.CompressionType(f.elf.ByteOrder.Uint32(chdr[:])) != elf.COMPRESS_ZLIB {
			return
		}
		in := &inflating{b: make([]byte, s.Size)}
		in.open = func() (io.Reader, error) {
			raw := make([]byte, s.FileSize-chdrSize)
			if _, err := f.r.ReadAt(raw, int64(s.Offset+chdrSize)); err != nil {
				return nil, err
			}
			return zlib.NewReader(bytes.NewReader(raw))
		}
		if f.kept != nil {
			in.kept = func() []byte { return f.kept(s.Name) }
		}
		c.inflated.Store(in)
	})
	return c.inflated.Load(), c.beginErr
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
