// Package arm64 gets a thread past the first instruction of a function on
// AArch64 while a BRK stands in its place: by computing what the instruction
// does, or by code in a slot that does the same elsewhere and jumps back.
//
// Contract: Emulate leaves registers, flags and memory as the processor would.
// What is not understood is refused, never approximated.
//
// Hazard: the way back from a slot needs a register. It takes x16 or x17, which
// the procedure call standard gives to whatever lies between a caller and the
// first instruction of a function (AAPCS64, section 6.1.1): a slot is right at
// a function's entry, and nowhere else.
//
// Non-goal: it is no general emulator; it knows what compilers put first. It
// builds and is tested on every architecture.
package arm64
