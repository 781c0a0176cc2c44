package objfile

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// ErrNoDebugFile says that a file has no debug information of its own and no
// separate file with it was found.
var ErrNoDebugFile = errors.New("no separate debug file")

// OpenPath opens the ELF file at a path.
func OpenPath(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	out, err := FromOS(f, path)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return out, nil
}

// FromOS makes a File of an open one, which it owns from then on.
func FromOS(f *os.File, name string) (*File, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file", name, ErrMalformed)
	}
	return Open(name, f, st.Size(), f)
}

// DebugFile finds the separate debug file of f, which is the program at path:
// by build-id under root/.build-id, then by .gnu_debuglink beside the program,
// in its .debug folder and under root. The caller closes it.
func (f *File) DebugFile(path string, roots []string) (*File, error) {
	id := f.BuildID()
	var errs []error
	try := func(p string, ok func(*File) bool) *File {
		d, err := OpenPath(p)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
			return nil
		}
		if !d.hasDebug() || !ok(d) {
			_ = d.Close()
			return nil
		}
		return d
	}
	if len(id) > 2 {
		for _, root := range roots {
			p := filepath.Join(root, ".build-id", id[:2], id[2:]+".debug")
			if d := try(p, func(d *File) bool { return d.BuildID() == id }); d != nil {
				return d, nil
			}
		}
	}
	name, crc, ok := f.debugLink()
	if ok {
		dir := filepath.Dir(path)
		places := []string{filepath.Join(dir, name), filepath.Join(dir, ".debug", name)}
		for _, root := range roots {
			places = append(places, filepath.Join(root, dir, name))
		}
		for _, p := range places {
			if d := try(p, func(d *File) bool { return d.matches(id, crc) }); d != nil {
				return d, nil
			}
		}
	}
	return nil, errors.Join(append(errs, fmt.Errorf("%s: %w", f.Name, ErrNoDebugFile))...)
}

func (f *File) hasDebug() bool { return f.Has(".debug_info") || f.Has(".symtab") }

// matches compares the build-ids, or the checksum when there are none.
func (f *File) matches(id string, crc uint32) bool {
	if id != "" && f.BuildID() != "" {
		return f.BuildID() == id
	}
	h := crc32.NewIEEE()
	_, err := io.Copy(h, io.NewSectionReader(f.r, 0, f.size))
	return err == nil && h.Sum32() == crc
}

// debugLink decodes .gnu_debuglink: a file name, padding, a checksum.
func (f *File) debugLink() (name string, crc uint32, ok bool) {
	b, err := f.Section(".gnu_debuglink")
	if err != nil {
		return "", 0, false
	}
	name, rest, ok := cutName(b)
	pad := (4 - (len(name)+1)%4) % 4
	if !ok || len(rest) < pad+4 || name != filepath.Base(name) {
		return "", 0, false
	}
	return name, binary.LittleEndian.Uint32(rest[pad:]), true
}

// AltFile opens the supplementary file that .gnu_debugaltlink names (dwz),
// nil without an error when there is none.
func (f *File) AltFile(roots []string) (*File, error) {
	b, err := f.Section(".gnu_debugaltlink")
	if err != nil || b == nil {
		return nil, err
	}
	name, raw, ok := cutName(b)
	if !ok || len(raw) < 2 || len(raw) > 64 {
		return nil, fmt.Errorf("%s: section .gnu_debugaltlink: %w", f.Name, ErrMalformed)
	}
	id := hex.EncodeToString(raw)
	places := []string{name}
	if !filepath.IsAbs(name) {
		places[0] = filepath.Join(filepath.Dir(f.Name), name)
	}
	for _, root := range roots {
		places = append(places, filepath.Join(root, ".build-id", id[:2], id[2:]+".debug"))
	}
	for _, p := range places {
		if d, err := OpenPath(p); err == nil {
			if d.BuildID() == id {
				return d, nil
			}
			_ = d.Close()
		}
	}
	return nil, fmt.Errorf("%s: supplementary debug file %s: %w", f.Name, name, ErrNoDebugFile)
}

func cutName(b []byte) (name string, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), b[i+1:], i > 0
		}
	}
	return "", nil, false
}
