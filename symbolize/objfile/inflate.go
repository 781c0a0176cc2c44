package objfile

import (
	"bytes"
	"debug/elf"
	"io"

	"github.com/klauspost/compress/zlib"
)

// chdrSize is the size of an Elf64_Chdr: type, padding, uncompressed size,
// alignment (System V gABI, "Section Compression").
const chdrSize = 24

// contents reads a section whose size was checked. What zlib has compressed,
// which is what distributions do to debug files, is inflated by a package that is
// twice as fast at it as the standard library's.
func (f *File) contents(s *elf.Section) ([]byte, error) {
	if !compressed(s) || s.FileSize < chdrSize {
		return s.Data()
	}
	raw := make([]byte, s.FileSize)
	if _, err := f.r.ReadAt(raw, int64(s.Offset)); err != nil {
		return nil, err
	}
	if elf.CompressionType(f.elf.ByteOrder.Uint32(raw)) != elf.COMPRESS_ZLIB {
		return s.Data()
	}
	z, err := zlib.NewReader(bytes.NewReader(raw[chdrSize:]))
	if err != nil {
		return nil, err
	}
	b := make([]byte, s.Size)
	if _, err := io.ReadFull(z, b); err != nil {
		return nil, err
	}
	return b, z.Close()
}
