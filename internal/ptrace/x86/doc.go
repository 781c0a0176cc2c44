// Package x86 gets a thread past the first instruction of a function while a
// breakpoint byte stands in its place: by computing what the instruction does,
// or by a copy of it that runs elsewhere.
//
// Contract: Emulate leaves registers and flags as the processor would; AF after
// a logical operation, which the architecture leaves undefined, is cleared as
// processors do. What is not understood is refused, never approximated.
//
// Non-goal: it is no general emulator; it knows what compilers put first.
package x86
