package dwinfo

import (
	"slices"
	"sync"
)

// Sections hands out the sections of one ELF file, for instance ".debug_info",
// uncompressed. A section that the file lacks is nil without an error. The
// bytes must stay valid and unchanged as long as the Data lives. Section is
// called at most once per name, and only when a question needs the section,
// possibly from several goroutines at once.
type Sections interface {
	Section(name string) ([]byte, error)
}

// Growing are Sections that need not be whole to be used: SectionTo returns a
// section's bytes, all of them, of which only the first n are valid yet. Section
// returns the same memory. Compressed sections are faster that way.
type Growing interface {
	Sections
	SectionTo(name string, n int) ([]byte, error)
}

// Func is one function that covers a pc: the physical function, or a call
// that the compiler inlined into it.
type Func struct {
	// Name is DW_AT_name: unqualified, without the linker's suffixes. It is
	// "" for code that has lines but no function entry, such as hand-written
	// assembly and the thunks that gcc leaves for folded identical functions:
	// the symbol table knows the name.
	Name string
	// Linkage is the assembler's name when the compiler recorded one besides
	// Name: mangled for C++ and Rust, "__GI___mmap64" for glibc's __mmap64 (gdb
	// prints that one); else "".
	Linkage string
	// File is the full path of the current line, the compilation directory
	// joined and cleaned; "" when unknown. It stays relative when the
	// compiler recorded a relative compilation directory (glibc's do).
	File string
	// FileRaw is the same file as the line table spells it, which is what
	// gdb prints: "../sysdeps/unix/sysv/linux/mremap.c".
	FileRaw string
	// Line is the current line in this function, counted from 1; 0 when
	// unknown. Innermost: the line table's. Others: where they call the next
	// inner one.
	Line int
	// Inlined tells a call without a frame of its own.
	Inlined bool
	// Low is the link-time address of the physical function's entry, also
	// when the pc lies in a part of it that the compiler split off
	// (name.cold); 0 when Name is "".
	Low uint64
	// External tells a function visible outside its unit (DW_AT_external).
	External bool
}

// Data answers questions about one ELF file's debug information. It is safe
// for concurrent use.
type Data struct {
	main *file

	coveredOnce sync.Once
	covered     spans // pc to unit offset, from .debug_aranges
	listed      map[int]bool

	restOnce sync.Once
	rest     spans // pc to unit offset, of the units that covered lacks
	restErr  error
}

// Open prepares the debug information in s. alt is the supplementary file that
// .gnu_debugaltlink or .debug_sup names, nil when there is none. Nothing is
// read before the first question; a file without debug information answers
// that it knows nothing, without an error.
func Open(s Sections, alt Sections) (*Data, error) {
	d := &Data{main: newFile(s)}
	if alt != nil {
		d.main.alt = newFile(alt)
	}
	return d, nil
}

// FramesAt returns the functions that cover pc (a link-time address),
// innermost inlined call first, the physical function last; none, without an
// error, when no unit covers it. For a return address the caller passes
// address-1. With an error the result holds what was found before it: a frame
// may lack its line, or outer frames may be all there is.
func (d *Data) FramesAt(pc uint64) ([]Func, error) {
	d.coveredOnce.Do(d.loadAranges)
	frames, err := d.framesIn(&d.covered, pc)
	if named(frames) {
		return frames, err
	}
	// Only a pc that .debug_aranges does not explain pays for the units that
	// have no entry there (clang writes none; gas writes incomplete ones).
	d.restOnce.Do(d.loadRest)
	more, moreErr := d.framesIn(&d.rest, pc)
	if len(more) > 0 && (len(frames) == 0 || named(more)) {
		return more, moreErr
	}
	if len(frames) > 0 || err != nil {
		return frames, err
	}
	if moreErr == nil {
		moreErr = d.restErr
	}
	return nil, moreErr
}

// named reports whether a function was found, not only a line.
func named(frames []Func) bool {
	if len(frames) == 0 {
		return false
	}
	f := &frames[len(frames)-1]
	return f.Name != "" || f.Low != 0
}

// framesIn asks the units that s gives for pc. More than one may claim it
// (identical code folding, a tombstone at address 0): the first that names a
// function wins, then the first that knows a line.
func (d *Data) framesIn(s *spans, pc uint64) (best []Func, err error) {
	for off := range s.covering(pc) {
		d.main.prefetch(off)
		u, e := d.main.unit(off)
		var frames []Func
		if e == nil {
			frames, e = u.framesAt(pc)
		}
		if named(frames) {
			return frames, e
		}
		if len(best) == 0 {
			best = frames
		}
		if err == nil {
			err = e
		}
	}
	return best, err
}

// framesAt returns the functions of the unit at pc; when the unit has none
// there but its line table has a row, one nameless Func.
func (u *unit) framesAt(pc uint64) ([]Func, error) {
	chain, low, err := u.chainAt(pc)
	lp, lineErr := u.lines()
	var row lineRow
	found := false
	if lp != nil {
		var e error
		row, found, e = lp.rowAt(pc)
		if lineErr == nil {
			lineErr = e
		}
	}
	if err == nil {
		err = lineErr
	}
	if len(chain) == 0 {
		if !found {
			return nil, err
		}
		f := Func{Line: row.line}
		f.File, f.FileRaw = lp.file(row.file)
		return []Func{f}, err
	}
	frames := make([]Func, len(chain))
	for i := range chain { // chain is outermost first
		e := &chain[i]
		f := &frames[len(chain)-1-i]
		f.Inlined = i > 0
		f.Low = low
		if e := u.nameInto(f, e); e != nil && err == nil {
			err = e
		}
		if i+1 < len(chain) {
			inner := &chain[i+1]
			f.Line = inner.callLine
			if lp != nil && inner.callFile != 0 {
				f.File, f.FileRaw = lp.file(inner.callFile)
			}
		} else if found {
			f.Line = row.line
			f.File, f.FileRaw = lp.file(row.file)
		}
	}
	return frames, err
}

// span says that [lo, hi) belongs to id, an offset in .debug_info.
type span struct {
	lo, hi uint64
	id     int
}

// spans are sorted by lo. They may overlap; maxHi[i] is the largest hi up to
// and including i, so that a search knows where to stop.
type spans struct {
	s     []span
	maxHi []uint64
}

func (x *spans) add(lo, hi uint64, id int) {
	if lo < hi {
		x.s = append(x.s, span{lo, hi, id})
	}
}

func (x *spans) sort() {
	slices.SortStableFunc(x.s, func(a, b span) int {
		switch {
		case a.lo < b.lo:
			return -1
		case a.lo > b.lo:
			return 1
		}
		return 0
	})
	x.maxHi = make([]uint64, len(x.s))
	var m uint64
	for i, s := range x.s {
		m = max(m, s.hi)
		x.maxHi[i] = m
	}
}

// covering yields the ids of the spans that hold pc, each once in a row, the
// one that begins last first.
func (x *spans) covering(pc uint64) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		i, _ := slices.BinarySearchFunc(x.s, pc, func(s span, pc uint64) int {
			if s.lo <= pc {
				return -1
			}
			return 1
		})
		last := -1
		for i--; i >= 0 && x.maxHi[i] > pc; i-- {
			if s := &x.s[i]; s.hi > pc && s.id != last {
				last = s.id
				if !yield(s.id) {
					return
				}
			}
		}
	}
}
