package ptrace

import "github.com/phpwhy/phpwhy/internal/ptrace/x86"

const (
	// maxInt3 bounds the breakpoints to what the net's page holds.
	maxInt3 = 64 // slots up to 3,584
	slotsAt = 1536
	// slotSize holds an instruction of at most 15 bytes, a jump of 14, and at
	// firstAt the byte that the breakpoint has replaced.
	slotSize = 32
	firstAt  = 31
	maxInsn  = x86.MaxLen
	// breakAfter is how far behind the breakpoint's address a thread stands.
	breakAfter = 1
	breakSI    = 0x80 // SI_KERNEL: what int3 raises SIGTRAP with
)

// breakCode is int3.
var breakCode = []byte{0xcc}

// sigreturn is the way back from a handler: mov $SYS_rt_sigreturn,%eax; syscall.
var sigreturn = []byte{0xb8, 15, 0, 0, 0, 0x0f, 0x05}

// lookupHandler is int3's handler in the net's page.
var lookupHandler = []byte{
	0x48, 0x8b, 0x82, 0xa8, 0x00, 0x00, 0x00, // mov 0xa8(%rdx),%rax   uc_mcontext.gregs[REG_RIP]
	0x48, 0x8d, 0x0d, tableAt - 14, 0x00, 0x00, 0x00, // lea table(%rip),%rcx
	0x4c, 0x8b, 0x01, // loop: mov (%rcx),%r8
	0x4d, 0x85, 0xc0, // test %r8,%r8
	0x74, 0x16, // je done
	0x49, 0x39, 0xc0, // cmp %rax,%r8
	0x74, 0x06, // je found
	0x48, 0x83, 0xc1, 0x10, // add $16,%rcx
	0xeb, 0xed, // jmp loop
	0x4c, 0x8b, 0x41, 0x08, // found: mov 8(%rcx),%r8
	0x4c, 0x89, 0x82, 0xa8, 0x00, 0x00, 0x00, // mov %r8,0xa8(%rdx)
	0xc3, // done: ret
}

type insn = x86.Insn

func decodeInsn(code []byte) (*insn, error) { return x86.Decode(code) }

func slotFor(in *insn, addr uint64) ([]byte, error) { return in.Slot(addr + uint64(in.Len)) }

func emulate(in *insn, r *userRegs, st x86.Store) error { return in.Emulate(r, st) }

// unslot maps an offset in a slot: the copy to the instruction itself, the jump
// to the one after.
func unslot(in *insn, addr, off uint64) uint64 {
	if off == 0 {
		return addr
	}
	return addr + uint64(in.Len)
}

// patch writes single bytes, which other processors fetch whole (Intel SDM
// vol. 3, 9.1.3), so threads may run meanwhile.
func (e *int3) patch(set bool) error { return e.write(e.s.mem, set) }
