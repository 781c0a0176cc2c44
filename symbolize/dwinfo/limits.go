package dwinfo

import (
	"errors"
	"fmt"
)

// Limits of the walks that input bytes could otherwise prolong. Real values
// are the largest seen in php, libc, libxml2 and a Rust cdylib.
const (
	maxOriginChain  = 16      // abstract_origin and specification links; real: 3
	maxInlineDepth  = 512     // inlined calls around one pc; real: 24
	maxTreeDepth    = 4096    // nesting of entries; real: 40
	maxImportDepth  = 16      // partial units importing partial units; real: 2
	maxImports      = 1 << 14 // partial units imported by one unit in all; real: some hundred
	maxTypeChain    = 64      // typedef, const, volatile … links of one type; real: 5
	maxStructDepth  = 32      // structs inside structs; real: 6
	maxRangeEntries = 1 << 16 // entries of one range list; real: 300
	maxSeqOverlap   = 64      // line sequences that overlap at one address; real: 1
	maxFuncRanges   = 1 << 20 // address ranges of one unit's functions; real: 2,100
	maxMembers      = 1 << 14 // flattened members of one struct; real: 429
	maxLineEntries  = 1 << 16 // directories or files of one line table; real: 600
	maxEntryFormats = 64      // columns of a version 5 line table header; real: 5
	maxAttrs        = 1 << 10 // attributes of one abbreviation; real: 17
)

// ErrMalformed is the cause of an *Error: the bytes contradict the standard.
var ErrMalformed = errors.New("malformed DWARF")

// ErrLimit is the cause of an *Error: a walk was cut by one of the package's
// limits, so that the answer may be incomplete.
var ErrLimit = errors.New("limit of a DWARF walk reached")

// Error says where in which section decoding stopped.
type Error struct {
	Section string // ".debug_info"
	Offset  uint64 // bytes from the start of the uncompressed section
	What    string // what was being decoded, and what is wrong with it
	Err     error  // ErrMalformed or ErrLimit
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s+0x%x: %s: %v", e.Section, e.Offset, e.What, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

func malformed(section string, off int, what string) error {
	return &Error{Section: section, Offset: uint64(max(off, 0)), What: what, Err: ErrMalformed}
}

func limit(section string, off int, what string) error {
	return &Error{Section: section, Offset: uint64(max(off, 0)), What: what, Err: ErrLimit}
}
