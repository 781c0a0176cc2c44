package dwinfo

import (
	"fmt"
	"sort"
	"sync"
)

// sectionID indexes sectionNames.
type sectionID int

const (
	secInfo sectionID = iota
	secAbbrev
	secAranges
	secLine
	secStr
	secLineStr
	secStrOffsets
	secAddr
	secRanges
	secRnglists
	numSections
)

var sectionNames = [numSections]string{
	".debug_info", ".debug_abbrev", ".debug_aranges", ".debug_line", ".debug_str",
	".debug_line_str", ".debug_str_offsets", ".debug_addr", ".debug_ranges", ".debug_rnglists",
}

// file is one ELF file's DWARF: the one asked about, or its supplement.
type file struct {
	src  Sections
	alt  *file
	secs [numSections]struct {
		once sync.Once
		b    []byte
		err  error
	}

	prefetchOnce sync.Once

	headersOnce sync.Once
	headers     []int // offsets of all units, ascending
	headersErr  error

	mu      sync.Mutex
	units   map[int]*lazyUnit
	abbrevs map[abbrevKey]*lazyAbbrevs
	lines   map[lineKey]*lazyLines
}

type abbrevKey struct {
	off int
	p   params
}

type lazyUnit struct {
	once sync.Once
	u    *unit
	err  error
}

type lazyAbbrevs struct {
	once sync.Once
	t    *abbrevTable
	err  error
}

func newFile(s Sections) *file {
	return &file{
		src:     s,
		units:   make(map[int]*lazyUnit),
		abbrevs: make(map[abbrevKey]*lazyAbbrevs),
		lines:   make(map[lineKey]*lazyLines),
	}
}

func (f *file) section(id sectionID) ([]byte, error) {
	s := &f.secs[id]
	s.once.Do(func() {
		s.b, s.err = f.src.Section(sectionNames[id])
		if s.err != nil {
			s.b, s.err = nil, fmt.Errorf("read section %s: %w", sectionNames[id], s.err)
		}
	})
	return s.b, s.err
}

// sectionTo is section for what lies before end. Of the bytes that it returns
// only those are valid.
func (f *file) sectionTo(id sectionID, end int) ([]byte, error) {
	g, ok := f.src.(Growing)
	if !ok {
		return f.section(id)
	}
	b, err := g.SectionTo(sectionNames[id], end)
	if err != nil {
		return nil, fmt.Errorf("read section %s: %w", sectionNames[id], err)
	}
	return b, nil
}

// prefetch asks for what a lookup in the unit at off is going to need, all at
// once: inflating it is nearly the whole cost of a compressed debug file. It
// returns when all is there, so that no goroutine outlives the question. Errors
// wait for whoever needs the section.
func (f *file) prefetch(off int) {
	f.prefetchOnce.Do(func() {
		var wg sync.WaitGroup
		for _, id := range [...]sectionID{secAbbrev, secStr, secLineStr, secRnglists} {
			wg.Go(func() { _, _ = f.section(id) })
		}
		wg.Go(func() { _, _ = f.sectionTo(secInfo, off+maxUnitHeader) })
		wg.Go(func() {
			// Line tables are in the units' order, as far from the start in proportion.
			info, err1 := f.sectionTo(secInfo, 0)
			line, err2 := f.sectionTo(secLine, 0)
			if err1 == nil && err2 == nil && len(info) > 0 {
				_, _ = f.sectionTo(secLine, int(float64(len(line))*float64(off)/float64(len(info))))
			}
		})
		wg.Wait()
	})
}

// cached returns the value of m under key, made by fill at most once. The lock
// is not held while filling: a big unit must not stop the others.
func cached[K comparable, V any](mu *sync.Mutex, m map[K]*V, key K) *V {
	mu.Lock()
	defer mu.Unlock()
	v := m[key]
	if v == nil {
		v = new(V)
		m[key] = v
	}
	return v
}

// unit returns the unit whose header is at off.
func (f *file) unit(off int) (*unit, error) {
	l := cached(&f.mu, f.units, off)
	l.once.Do(func() { l.u, l.err = f.parseUnit(off) })
	return l.u, l.err
}

func (f *file) abbrevTable(off int, p params) (*abbrevTable, error) {
	l := cached(&f.mu, f.abbrevs, abbrevKey{off, p})
	l.once.Do(func() {
		var sec []byte
		if sec, l.err = f.section(secAbbrev); l.err == nil {
			l.t, l.err = parseAbbrevs(sec, off, p)
		}
	})
	return l.t, l.err
}

// unitOffsets lists the units by their headers alone.
func (f *file) unitOffsets() ([]int, error) {
	f.headersOnce.Do(func() {
		var info []byte
		info, f.headersErr = f.section(secInfo)
		c := at(info, 0)
		for !c.done() {
			off := c.p
			n, _ := c.initialLength()
			c.skip64(n)
			if c.bad {
				f.headersErr = malformed(".debug_info", off, "unit runs past the end of the section")
				return
			}
			f.headers = append(f.headers, off)
		}
	})
	return f.headers, f.headersErr
}

// unitContaining returns the unit that holds the entry at off. The list of
// units may end in an error; what precedes it is used.
func (f *file) unitContaining(off int) (*unit, error) {
	offs, listErr := f.unitOffsets()
	i := sort.SearchInts(offs, off+1) - 1
	if i < 0 {
		if listErr != nil {
			return nil, listErr
		}
		return nil, malformed(".debug_info", off, "reference to no unit")
	}
	u, err := f.unit(offs[i])
	if err != nil {
		return nil, err
	}
	if off < u.root || off >= u.end {
		return nil, malformed(".debug_info", off, "reference outside of every unit's entries")
	}
	return u, nil
}
