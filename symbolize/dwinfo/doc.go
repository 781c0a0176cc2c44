// Package dwinfo answers two questions from DWARF debug information: which
// functions, files and lines a program counter belongs to, inlined calls
// included, and how a C struct is laid out. It reads DWARF 2 to 5, 32-bit and
// 64-bit, little-endian, with or without a dwz supplementary file, and decodes
// only the units that a question touches: a stack of a dozen frames must not
// cost a walk over every entry of a 30 MB debug file. Addresses are link-time
// addresses; the caller subtracts the load bias. The package never does I/O:
// section bytes come from the caller, and are kept, never changed.
//
// Hazard: the bytes come from a file that a stranger may have written. Offsets,
// lengths and counts in them may lie, references may form cycles. Every read
// goes through a cursor with a sticky error, every walk either consumes input
// or counts against a limit named in limits.go, and no allocation is sized by a
// length that was merely read. What was found before an error is returned
// together with it.
//
// The line reported for a pc is the one gdb prints; rowEmulation in line.go
// lists the rules, which are gdb's rather than the standard's.
//
// Non-goal: split DWARF (.dwo, .dwp), type units, variables, locations,
// demangling. For a unit whose entries live in a .dwo file only the file and
// the line are known.
//
// The standard: https://dwarfstd.org/doc/DWARF5.pdf; section numbers in the
// comments are those of version 5.
package dwinfo
