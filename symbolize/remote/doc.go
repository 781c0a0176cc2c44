// Package remote describes the memory and the registers of a process that is
// not this one: a live process, a core file, or a snapshot of either.
//
// Hazard: every Addr is somebody else's pointer. It may be stale, torn or
// hostile; it is never dereferenced here, only handed to a Reader, and
// arithmetic on it is checked.
//
// Non-goal: the package knows neither ELF nor DWARF nor ptrace.
package remote
