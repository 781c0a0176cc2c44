package symbolize

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"github.com/phpwhy/phpwhy/symbolize/objfile"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Opener opens the file that a process has mapped; it knows about mount
// namespaces and deleted files. The Image closes what it returns.
type Opener func(m remote.Mapping) (*os.File, error)

// debugRoots are where distributions put separate debug files.
var debugRoots = []string{"/usr/lib/debug"}

// Cache keeps parsed modules, so that forty workers of one program cost one
// parse. It is safe for concurrent use.
type Cache struct {
	mu   sync.Mutex
	mods map[cacheKey]*cacheEntry
	// store keeps answers between runs, nil for none.
	store Store
}

type cacheKey struct {
	dev, inode uint64
	path       string
}

type cacheEntry struct {
	once sync.Once
	mod  *Module
	err  error
}

// NewCache makes an empty cache.
func NewCache() *Cache { return &Cache{mods: make(map[cacheKey]*cacheEntry)} }

// KeepIn has what is found out about modules kept between runs. Call it before
// the cache is used.
func (c *Cache) KeepIn(s Store) { c.store = s }

// Keep saves what was found out about modules since. An error costs nothing but
// the time to find it out again.
func (c *Cache) Keep() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs error
	for _, e := range c.mods {
		if e.mod != nil {
			errs = errors.Join(errs, e.mod.keep())
		}
	}
	return errs
}

// module opens the file mapped at m, or takes what the process has of it in
// memory.
func (c *Cache) module(m remote.Mapping, img *Image, loaded func() (*objfile.File, error)) (*Module, error) {
	k := cacheKey{m.Dev, m.Inode, m.Path}
	c.mu.Lock()
	e := c.mods[k]
	if e == nil {
		e = &cacheEntry{}
		c.mods[k] = e
	}
	c.mu.Unlock()
	e.once.Do(func() {
		search := objfile.Search{Roots: debugRoots, Inside: img.inside}
		f, err := img.open(m)
		if err != nil {
			of, merr := loaded()
			if merr != nil {
				e.err = errors.Join(err, merr)
				return
			}
			e.mod = newModule(m.Path, of, search)
			e.mod.Unopened = err
			return
		}
		of, err := objfile.FromOS(f, m.Path)
		if err != nil {
			_ = f.Close()
			e.err = err
			return
		}
		e.mod = newModule(m.Path, of, search)
		e.mod.store = c.store
	})
	return e.mod, e.err
}

// Image is the code of one process: which modules are mapped where. It is
// safe for concurrent use.
type Image struct {
	maps  remote.Mappings
	open  Opener
	mem   remote.Reader
	cache *Cache
	// inside opens a path as the process sees it, nil when nobody can.
	inside func(path string) (*os.File, error)

	placed []*placed // sorted by start
	// codeMask keeps the bits that an address in this process can have.
	codeMask uint64

	mu    sync.Mutex
	named map[frameKey][]Frame // what expand has found before
	hosts []host
	// hosted remembers which return addresses are behind a call of a host.
	hosted map[remote.Addr]bool
}

// placed is a file at an address.
type placed struct {
	start, end remote.Addr // from its first to its last mapping
	code       remote.Mapping
	all        []remote.Mapping // of the file
	once       sync.Once
	mod        *Module
	bias       uint64 // runtime address minus link-time address, modulo 2^64
	err        error
}

// NewImage describes a process with these mappings. mem reads its memory, for
// the vDSO, which is no file; it may be nil.
func NewImage(maps remote.Mappings, open Opener, mem remote.Reader, cache *Cache) *Image {
	img := &Image{maps: maps, open: open, mem: mem, cache: cache, named: make(map[frameKey][]Frame), hosted: make(map[remote.Addr]bool)}
	byFile := make(map[cacheKey]*placed)
	for _, m := range maps {
		img.codeMask |= addressBits(m.End)
		vdso := m.Path == "[vdso]"
		if inNoFile(&m) && !vdso {
			continue
		}
		k := cacheKey{m.Dev, m.Inode, m.Path}
		p := byFile[k]
		if p == nil {
			p = &placed{start: m.Start, end: m.End}
			byFile[k] = p
		}
		p.start, p.end = min(p.start, m.Start), max(p.end, m.End)
		p.all = append(p.all, m)
		if m.Exec && p.code.End == 0 {
			p.code = m
			img.placed = append(img.placed, p)
		}
	}
	sort.Slice(img.placed, func(i, j int) bool { return img.placed[i].code.Start < img.placed[j].code.Start })
	return img
}

// Inside lets separate debug files be found in the process's own file system,
// too: a container brings its own. open gets a path as the process sees it and
// returns regular files only. Call it before the image is used.
func (img *Image) Inside(open func(path string) (*os.File, error)) { img.inside = open }

// Mappings are those the Image was made from.
func (img *Image) Mappings() remote.Mappings { return img.maps }

// Outdated reports whether a walk came through an address that no executable
// mapping has: code that was mapped after the Image was made, and perhaps what a
// guess made of it.
func (img *Image) Outdated(w *Walk) bool {
	for i := range w.Frames {
		pc := w.Frames[i].Lookup()
		if m := img.maps.Find(pc); pc != 0 && (m == nil || !m.Exec) {
			return true
		}
	}
	return false
}

// load opens the module once.
func (img *Image) load(p *placed) (*Module, error) {
	p.once.Do(func() {
		if p.code.Path == "[vdso]" {
			p.mod, p.err = img.vdso(p)
		} else {
			p.mod, p.err = img.cache.module(p.code, img, func() (*objfile.File, error) { return img.loaded(p) })
		}
		if p.err == nil {
			p.bias, p.err = bias(p.mod.file, p.code)
		}
	})
	return p.mod, p.err
}

// maxModule bounds what is read of one module's memory, in bytes.
const maxModule = 256 << 20

// maxVDSO bounds the vDSO's size in bytes; it has two pages today.
const maxVDSO = 1 << 20

func (img *Image) vdso(p *placed) (*Module, error) {
	if img.mem == nil {
		return nil, fmt.Errorf("[vdso]: %w: nothing to read it with", remote.ErrUnmapped)
	}
	n, ok := p.code.End.Distance(p.code.Start)
	if !ok || n > maxVDSO {
		return nil, fmt.Errorf("[vdso]: %w: %d bytes", objfile.ErrMalformed, n)
	}
	b := make([]byte, n)
	if err := remote.ReadFull(img.mem, b, p.code.Start); err != nil {
		return nil, fmt.Errorf("[vdso]: %w", err)
	}
	f, err := objfile.Open("[vdso]", bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		return nil, err
	}
	return newModule("[vdso]", f, objfile.Search{}), nil
}

// loaded reads a module from the process's memory.
func (img *Image) loaded(p *placed) (*objfile.File, error) {
	if img.mem == nil {
		return nil, fmt.Errorf("%s in memory: %w: nothing to read it with", p.code.Path, remote.ErrUnmapped)
	}
	var pieces []objfile.Piece
	total := uint64(0)
	for _, m := range p.all {
		n, ok := m.End.Distance(m.Start)
		if total += n; !ok || total > maxModule {
			return nil, fmt.Errorf("%s in memory: %w: more than %d bytes", p.code.Path, objfile.ErrMalformed, maxModule)
		}
		b := make([]byte, n)
		// The last page may reach beyond the file's end and then can't be read.
		got, err := img.mem.ReadMemory(b, m.Start)
		if err != nil && got == 0 {
			if m.Start == p.code.Start { // as in most core files
				return nil, fmt.Errorf("%s in memory: %w", p.code.Path, err)
			}
			continue
		}
		pieces = append(pieces, objfile.Piece{At: uint64(m.Start), Offset: m.Offset, Data: b[:got], Write: m.Write})
	}
	return objfile.FromLoaded(p.code.Path, pieces)
}

// bias compares where a mapping is with where its segment was linked.
func bias(f *objfile.File, m remote.Mapping) (uint64, error) {
	const page = 64 << 10 // the largest there is
	for _, l := range f.Loads() {
		if !l.Exec || m.Offset < l.Offset&^(page-1) || m.Offset >= l.Offset+l.Filesz {
			continue
		}
		linked := l.Vaddr + m.Offset - l.Offset
		return uint64(m.Start) - linked, nil
	}
	return 0, fmt.Errorf("%s: %w: no executable segment for the mapping at %s", f.Name, objfile.ErrMalformed, m.Start)
}

// find returns the module that has code at pc.
func (img *Image) find(pc remote.Addr) *placed {
	i := sort.Search(len(img.placed), func(i int) bool { return img.placed[i].code.Start > pc }) - 1
	if i < 0 || pc >= img.placed[i].end {
		return nil
	}
	return img.placed[i]
}

// MappedModule is a module at its place in one process.
type MappedModule struct {
	*Module
	Start remote.Addr // of its first mapping
	End   remote.Addr // of its last mapping
	Bias  uint64      // runtime minus link-time address
}

// Runtime converts a link-time address.
func (m *MappedModule) Runtime(linked uint64) remote.Addr { return remote.Addr(linked + m.Bias) }

// ModulesNamed returns the modules whose base name match accepts, in address
// order, and what kept some of them from being opened.
func (img *Image) ModulesNamed(match func(base string) bool) ([]MappedModule, error) {
	var out []MappedModule
	var errs []error
	for _, p := range img.placed {
		if !match(filepath.Base(p.code.Path)) {
			continue
		}
		if m, err := img.load(p); err != nil {
			errs = append(errs, err)
		} else {
			out = append(out, MappedModule{m, p.start, p.end, p.bias})
		}
	}
	return out, errors.Join(errs...)
}

// ModuleNamed returns the first module for which match is true of its base name.
func (img *Image) ModuleNamed(match func(base string) bool) (MappedModule, error) {
	for _, p := range img.placed {
		if !match(filepath.Base(p.code.Path)) {
			continue
		}
		m, err := img.load(p)
		return MappedModule{m, p.start, p.end, p.bias}, err
	}
	return MappedModule{}, errors.New("no such module is mapped")
}

// Libc returns the C library: glibc's or musl's.
func (img *Image) Libc() (MappedModule, error) {
	m, err := img.ModuleNamed(func(base string) bool {
		return base == "libc.so.6" || strings.HasPrefix(base, "libc-2.") ||
			strings.HasPrefix(base, "libc.musl-") || strings.HasPrefix(base, "ld-musl-") || base == "libc.so"
	})
	if err != nil {
		return m, fmt.Errorf("the C library: %w", err)
	}
	return m, nil
}

// ModuleAt returns the module that has code at pc.
func (img *Image) ModuleAt(pc remote.Addr) (MappedModule, bool) {
	p := img.find(pc)
	if p == nil {
		return MappedModule{}, false
	}
	m, err := img.load(p)
	if err != nil {
		return MappedModule{}, false
	}
	return MappedModule{m, p.start, p.end, p.bias}, true
}
