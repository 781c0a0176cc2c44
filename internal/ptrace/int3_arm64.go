package ptrace

import (
	"encoding/binary"
	"errors"

	"github.com/phpwhy/phpwhy/internal/ptrace/arm64"
)

const (
	// maxInt3 bounds the breakpoints to what the net's page holds.
	maxInt3 = 48 // slots up to 3,712
	slotsAt = 1024
	// slotSize is a multiple of 8 and holds arm64.MaxSlot bytes, and at firstAt
	// the instruction that the breakpoint has replaced.
	slotSize = 56
	firstAt  = 52
	maxInsn  = arm64.Len
	// breakAfter is how far behind the breakpoint's address a thread stands.
	breakAfter = 0
	breakSI    = trapBRKPT // what BRK raises SIGTRAP with
)

// breakCode is brk #0.
var breakCode = words(0xd4200000)

// sigreturn is the way back from a handler: mov x8, #SYS_rt_sigreturn; svc #0.
var sigreturn = words(0xd2801168, 0xd4000001)

// lookupHandler is int3's handler in the net's page; x2 is the ucontext_t.
var lookupHandler = words(
	0xf940dc43,                  // ldr x3, [x2, #440]   uc_mcontext.pc
	0x10000004|(tableAt-4)/4<<5, // adr x4, table
	0xf9400085,                  // loop: ldr x5, [x4]
	0xb40000e5,                  // cbz x5, done
	0xeb0300bf,                  // cmp x5, x3
	0x54000060,                  // b.eq found
	0x91004084,                  // add x4, x4, #16
	0x17fffffb,                  // b loop
	0xf9400485,                  // found: ldr x5, [x4, #8]
	0xf900dc45,                  // str x5, [x2, #440]
	0xd65f03c0,                  // done: ret
)

func words(w ...uint32) []byte {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

type insn = arm64.Insn

func decodeInsn(code []byte) (*insn, error) { return arm64.Decode(code) }

func slotFor(in *insn, addr uint64) ([]byte, error) { return in.Slot(addr) }

func emulate(in *insn, r *userRegs, st arm64.Store) error { return in.Emulate(&r.Regs, st) }

// unslot maps an offset in a slot to where the thread would be without it.
func unslot(in *insn, addr, off uint64) uint64 { return in.Original(addr, off) }

// patch writes while no thread runs. A processor may fetch neither the old nor
// the new instruction when it is changed under it (Arm ARM, B2.2.5, "Concurrent
// modification and execution of instructions").
func (e *int3) patch(set bool) error {
	stood := map[int]bool{}
	for tid, t := range e.s.threads {
		if t.stopped {
			stood[tid] = true
		}
	}
	if len(stood) == len(e.s.threads) {
		return e.write(e.s.mem, set)
	}
	// One that does not stop is not running either: it is in the kernel.
	_ = e.s.stopAll()
	err := e.write(e.s.mem, set)
	for tid, t := range e.s.threads {
		if t.stopped && !stood[tid] {
			err = errors.Join(err, e.s.resume(t, 0))
		}
	}
	return err
}
