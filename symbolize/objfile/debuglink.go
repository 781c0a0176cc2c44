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
	"syscall"
)

// ErrNoDebugFile says that a file has no debug information of its own and no
// separate file with it was found.
var ErrNoDebugFile = errors.New("no separate debug file")

// OpenPath opens the ELF file at a path. The path may come from a file or a
// process that nobody vouches for: opening a FIFO would wait for ever, and
// opening some devices does something.
func OpenPath(path string) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file", path, ErrMalformed)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return own(f, path)
}

// own is FromOS for a file that is closed when it is no ELF file.
func own(f *os.File, name string) (*File, error) {
	out, err := FromOS(f, name)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return out, nil
}

// Search says where separate debug files may be.
type Search struct {
	Roots []string // as /usr/lib/debug
	// Inside opens a path among the files of the process that has the program
	// mapped: in its container. It is asked after this machine's own. It may
	// be nil.
	Inside func(path string) (*os.File, error)
}

// each tries the paths on this machine and then in the container, until ok.
func (s Search) each(paths []string, try func(*File, error) bool) bool {
	for _, p := range paths {
		if try(OpenPath(p)) {
			return true
		}
	}
	if s.Inside == nil {
		return false
	}
	for _, p := range paths {
		f, err := s.Inside(p)
		var of *File
		if err == nil {
			of, err = own(f, p)
		}
		if try(of, err) {
			return true
		}
	}
	return false
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
	of, err := Open(name, f, st.Size(), f)
	if err != nil {
		return nil, err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		of.id = fmt.Sprintf("%d:%d %d %d.%09d %d.%09d", sys.Dev, sys.Ino, sys.Size, sys.Mtim.Sec, sys.Mtim.Nsec, sys.Ctim.Sec, sys.Ctim.Nsec)
	}
	return of, nil
}

// Identity tells this very file from any other, and from what it was before it
// was changed: device, inode, size and times. It is "" for what is no file.
func (f *File) Identity() string { return f.id }

// DebugFile finds the separate debug file of f, which is the program at path:
// by build-id under root/.build-id, then by .gnu_debuglink beside the program,
// in its .debug folder and under root. The caller closes it.
func (f *File) DebugFile(path string, roots []string) (*File, error) {
	return f.FindDebug(path, Search{Roots: roots})
}

// FindDebug is DebugFile with a choice of places. Wherever a file is found, it
// only counts when its build-id agrees, or its checksum where there is none.
func (f *File) FindDebug(path string, s Search) (*File, error) {
	id := f.BuildID()
	var errs []error
	var found *File
	try := func(ok func(*File) bool) func(*File, error) bool {
		return func(d *File, err error) bool {
			if err != nil {
				if !errors.Is(err, os.ErrNotExist) {
					errs = append(errs, err)
				}
				return false
			}
			if !d.hasDebug() || !ok(d) {
				_ = d.Close()
				return false
			}
			found = d
			return true
		}
	}
	var byID, byName []string
	if len(id) > 2 {
		for _, root := range s.Roots {
			byID = append(byID, filepath.Join(root, ".build-id", id[:2], id[2:]+".debug"))
		}
	}
	name, crc, ok := f.debugLink()
	if ok {
		dir := filepath.Dir(path)
		byName = []string{filepath.Join(dir, name), filepath.Join(dir, ".debug", name)}
		for _, root := range s.Roots {
			byName = append(byName, filepath.Join(root, dir, name))
		}
	}
	if s.each(byID, try(func(d *File) bool { return d.BuildID() == id })) ||
		s.each(byName, try(func(d *File) bool { return d.matches(id, crc) })) {
		return found, nil
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
	return f.FindAlt(Search{Roots: roots})
}

// FindAlt is AltFile with a choice of places.
func (f *File) FindAlt(s Search) (*File, error) {
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
	for _, root := range s.Roots {
		places = append(places, filepath.Join(root, ".build-id", id[:2], id[2:]+".debug"))
	}
	var found *File
	if s.each(places, func(d *File, err error) bool {
		if err == nil && d.BuildID() != id {
			_ = d.Close()
			return false
		}
		found = d
		return err == nil
	}) {
		return found, nil
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
