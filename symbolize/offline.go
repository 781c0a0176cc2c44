package symbolize

import (
	"errors"
	"fmt"
	"math"

	"github.com/phpwhy/phpwhy/symbolize/objfile"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Binary is an ELF file that no process has mapped: a program, a library, or the
// separate debug file of one. It names link-time addresses, which are the same
// wherever the file was mapped. It is safe for concurrent use.
type Binary struct {
	img *Image
	p   *placed
}

// OpenBinary opens the file at path. Its debug file is looked for in debugRoots, such as
// /usr/lib/debug, and beside it.
func OpenBinary(path string, debugRoots ...string) (*Binary, error) {
	f, err := objfile.OpenPath(path)
	if err != nil {
		return nil, err
	}
	m := newModule(path, f, objfile.Search{Roots: debugRoots})
	p := &placed{end: math.MaxUint64, mod: m, code: remote.Mapping{End: math.MaxUint64, Path: path}}
	p.once.Do(func() {}) // it is loaded
	img := &Image{placed: []*placed{p}, named: make(map[frameKey][]Frame), hosted: make(map[remote.Addr]bool)}
	return &Binary{img: img, p: p}, nil
}

// BuildID is the file's build-id in hexadecimal, "" when it has none.
func (b *Binary) BuildID() string { return b.p.mod.BuildID() }

// Close closes the file.
func (b *Binary) Close() error { return b.p.mod.file.Close() }

// Name names an address: the calls inlined there first, the function last. exact
// says that the instruction at addr itself runs; elsewhere addr is what follows a
// call. Frames without a name have an empty Function.
func (b *Binary) Name(addr uint64, exact bool) []Frame {
	return b.img.name(&PhysicalFrame{PC: remote.Addr(addr), Exact: exact})
}

// Checked is OpenBinary for the very file with a build-id, ErrOtherBuild for another.
func Checked(path, buildID string, debugRoots ...string) (*Binary, error) {
	b, err := OpenBinary(path, debugRoots...)
	if err != nil {
		return nil, err
	}
	if got := b.BuildID(); got != buildID || buildID == "" {
		_ = b.Close()
		return nil, fmt.Errorf("%s: %w: its build-id is %q, not %q", path, ErrOtherBuild, got, buildID)
	}
	return b, nil
}

// ErrOtherBuild says that a file is another build than the one that was asked for.
var ErrOtherBuild = errors.New("another build")
