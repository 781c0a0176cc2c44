package symbolize

import (
	"debug/elf"
	"errors"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	"github.com/ianlancetaylor/demangle"

	"github.com/phpwhy/phpwhy/symbolize/cfi"
	"github.com/phpwhy/phpwhy/symbolize/dwinfo"
	"github.com/phpwhy/phpwhy/symbolize/objfile"
	"github.com/phpwhy/phpwhy/symbolize/remote"
	"github.com/phpwhy/phpwhy/symbolize/symname"
)

// Module is one ELF file with its tables, shared by all processes that map
// it. Addresses are link-time addresses. It is safe for concurrent use.
type Module struct {
	Path string // as the process that was met first maps it
	Name string // base name
	// Unopened says why the file could not be opened. The module was then read
	// from the process's memory, and lacks what is only in the file.
	Unopened error

	file *objfile.File

	cfiOnce sync.Once
	cfi     *cfi.Section
	cfiErr  error

	debugOnce sync.Once
	debug     *objfile.File // where .symtab and DWARF are: file itself or a separate one
	dwarf     *dwinfo.Data  // nil when there is none
	debugErr  error

	symOnce sync.Once
	syms    []objfile.Symbol
	byName  map[string]int
	maxSize uint64 // of a symbol, bounds the search below

	mu   sync.RWMutex
	rows map[uint64]*cfi.Row
	// hosts are the functions that were asked for, by their entry; those without an
	// entry of their own are none.
	hosts map[uint64]host
	at    map[uint64][]dwinfo.Func

	search objfile.Search

	store      Store // nil: nothing is kept
	recallOnce sync.Once
	known      answers // to be kept; guarded by mu
	news       bool
	alt        bool // DWARF is in a supplementary file, too
}

// maxCached bounds the rows and lookups that a module remembers; a hot loop
// has a few hundred.
const maxCached = 1 << 16

func newModule(path string, f *objfile.File, search objfile.Search) *Module {
	return &Module{
		Path: path, Name: filepath.Base(path), file: f, search: search,
		rows: make(map[uint64]*cfi.Row), at: make(map[uint64][]dwinfo.Func),
	}
}

// File gives the ELF file itself.
func (m *Module) File() *objfile.File { return m.file }

// BuildID is the module's build-id in hexadecimal, "" when there is none.
func (m *Module) BuildID() string { return m.file.BuildID() }

// Arch is the architecture the module is compiled for, "" for one that is not
// known here.
func (m *Module) Arch() remote.Arch {
	switch m.file.Machine() {
	case elf.EM_X86_64:
		return remote.AMD64
	case elf.EM_AARCH64:
		return remote.ARM64
	}
	return ""
}

// row returns the call-frame row for a link-time address.
func (m *Module) row(pc uint64) (*cfi.Row, error) {
	m.mu.RLock()
	r := m.rows[pc]
	m.mu.RUnlock()
	if r != nil {
		return r, nil
	}
	m.cfiOnce.Do(m.loadCFI)
	if m.cfi == nil {
		return nil, errors.Join(cfi.ErrNoEntry, m.cfiErr)
	}
	v, err := m.cfi.Row(pc)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	if len(m.rows) < maxCached {
		m.rows[pc] = &v
	}
	m.mu.Unlock()
	return &v, nil
}

func (m *Module) loadCFI() {
	data, err := m.file.Section(".eh_frame")
	if err != nil || len(data) == 0 {
		m.cfiErr = err
		// musl's libc carries only .debug_frame, and that only unstripped.
		if b, derr := m.file.Section(".debug_frame"); derr == nil && len(b) > 0 {
			m.cfi = cfi.NewDebug(b)
		}
		return
	}
	hdr, err := m.file.Section(".eh_frame_hdr")
	if err != nil {
		hdr = nil // costs speed only
	}
	m.cfi = cfi.NewEH(data, m.file.Addr(".eh_frame"), hdr, m.file.Addr(".eh_frame_hdr"))
}

// loadDebug finds DWARF: in the file itself or in a separate debug file.
func (m *Module) loadDebug() {
	m.debug = m.file
	if !m.file.Has(".debug_info") {
		d, err := m.file.FindDebug(m.Path, m.search)
		switch {
		case err == nil:
			m.debug = d
		case !errors.Is(err, objfile.ErrNoDebugFile):
			m.debugErr = err
		}
	}
	if !m.debug.Has(".debug_info") {
		return
	}
	var alt dwinfo.Sections
	if a, err := m.debug.FindAlt(m.search); err == nil && a != nil {
		alt, m.alt = a, true
	}
	d, err := dwinfo.Open(m.debug, alt)
	if err != nil {
		m.debugErr = fmt.Errorf("%s: %w", m.debug.Name, err)
		return
	}
	m.dwarf = d
	if m.store != nil && m.debug != m.file {
		m.debug.KeepInflated(func(section string) []byte { return unsealed(m.store.Load(m.sectionKey(section))) })
	}
}

// DWARF returns the module's DWARF information, nil when there is none; the
// error says what is wrong with it when it is broken.
func (m *Module) DWARF() (*dwinfo.Data, error) {
	m.debugOnce.Do(m.loadDebug)
	return m.dwarf, m.debugErr
}

// Warm reads the tables that a frame at a link-time address is found and named
// by, and keeps them.
func (m *Module) Warm(pc uint64) {
	_, _ = m.row(pc)
	_ = m.functions(pc)
	_, _ = m.symbolAt(pc, 0)
}

// SymbolSource names the best table that names the module's functions:
// "dwarf", "symtab" or "dynsym".
func (m *Module) SymbolSource() string {
	if d, _ := m.DWARF(); d != nil {
		return "dwarf"
	}
	if m.file.Has(".symtab") || m.debug != nil && m.debug.Has(".symtab") {
		return "symtab"
	}
	return "dynsym"
}

func (m *Module) loadSymbols() {
	m.debugOnce.Do(m.loadDebug)
	own, _ := m.file.Symbols()
	m.syms = own
	if m.debug != m.file && m.debug != nil && m.debug.Has(".symtab") {
		if more, err := m.debug.Symbols(); err == nil && len(more) > 0 {
			m.syms = objfile.Merge(more, stubs(own)) // the debug file has no PLT
		}
	}
	m.byName = make(map[string]int, len(m.syms))
	for i, s := range m.syms {
		m.maxSize = max(m.maxSize, s.Size)
		name, version, _ := strings.Cut(s.Name, "@")
		if version == "plt" {
			continue
		}
		if j, ok := m.byName[name]; !ok || s.Over(m.syms[j]) {
			m.byName[name] = i
		}
	}
}

func stubs(syms []objfile.Symbol) []objfile.Symbol {
	var out []objfile.Symbol
	for _, s := range syms {
		if strings.HasSuffix(s.Name, "@plt") {
			out = append(out, s)
		}
	}
	return out
}

// Symbol finds a symbol by its raw name without version.
func (m *Module) Symbol(name string) (objfile.Symbol, bool) {
	if s, ok := m.file.Exported(name); ok {
		return s, true
	}
	m.symOnce.Do(m.loadSymbols)
	i, ok := m.byName[name]
	if !ok {
		return objfile.Symbol{}, false
	}
	return m.syms[i], true
}

// symbolAt finds the function that contains pc. A symbol reaches as far as
// its size says and no further: the nearest name below a static function's
// code is somebody else's. One without a size counts only where call-frame
// information starts a function right at it.
func (m *Module) symbolAt(pc, entry uint64) (objfile.Symbol, bool) {
	if m.store == nil {
		return m.searchSymbol(pc, entry)
	}
	m.recall()
	key := symbolKey(pc, entry)
	m.mu.RLock()
	best, known := m.known.Symbols[key]
	m.mu.RUnlock()
	if !known {
		best, _ = m.searchSymbol(pc, entry)
		m.learn(func(a *answers) { a.Symbols[key] = best })
	}
	return best, best.Name != ""
}

func (m *Module) searchSymbol(pc, entry uint64) (objfile.Symbol, bool) {
	m.symOnce.Do(m.loadSymbols)
	i := sort.Search(len(m.syms), func(i int) bool { return m.syms[i].Value > pc })
	best, found := objfile.Symbol{}, false
	for i--; i >= 0 && m.syms[i].Value+m.maxSize >= pc; i-- {
		s := m.syms[i]
		if s.Object {
			continue
		}
		inside := pc < s.Value+s.Size || s.Size == 0 && entry != 0 && s.Value == entry
		if !inside || found && !better(s, best) {
			continue
		}
		best, found = s, true
	}
	return best, found
}

// better orders symbols that contain the same address: the innermost one,
// then functions, then the more public name.
func better(a, b objfile.Symbol) bool {
	if a.Value != b.Value {
		return a.Value > b.Value
	}
	rank := func(s objfile.Symbol) int {
		r := 0
		if s.Func {
			r += 8
		}
		switch {
		case s.Global:
			r += 4
		case s.Weak:
			r += 2
		}
		return r
	}
	if rank(a) != rank(b) {
		return rank(a) > rank(b)
	}
	return a.Name < b.Name
}

// functions returns DWARF's view of pc: innermost inlined call first.
func (m *Module) functions(pc uint64) []dwinfo.Func {
	m.recall()
	m.mu.RLock()
	fs, ok := m.at[pc]
	m.mu.RUnlock()
	if ok {
		return fs
	}
	if d, _ := m.DWARF(); d != nil {
		// A unit that can't be decoded names nothing; the symbol table may.
		var err error
		if fs, err = d.FramesAt(pc); err == nil {
			m.learn(func(a *answers) { a.Funcs[pc] = fs })
		}
	}
	m.mu.Lock()
	if len(m.at) < maxCached {
		m.at[pc] = fs
	}
	m.mu.Unlock()
	return fs
}

// readable turns a symbol into the canonical name that people and rules use.
func readable(raw string) string {
	if strings.HasPrefix(raw, "_Z") || strings.HasPrefix(raw, "_R") || strings.HasPrefix(raw, "__Z") {
		if s, err := demangle.ToString(raw, demangle.NoClones); err == nil {
			return s
		}
	}
	return symname.Canonical(raw)
}
