package remote

// Arch names a processor architecture, as GOARCH does.
type Arch string

// The architectures whose registers have a place in Regs.
const (
	AMD64 Arch = "amd64"
	ARM64 Arch = "arm64"
)

// DWARF register numbers of x86-64 (System V ABI, AMD64 supplement, figure 3.36).
const (
	RAX = iota
	RDX
	RCX
	RBX
	RSI
	RDI
	RBP
	RSP
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
	RIP // the return address column
)

// DWARF register numbers of arm64 that have a role of their own
// (DWARF for the Arm 64-bit Architecture, table 1).
const (
	ARM64FP = 29
	ARM64LR = 30
	ARM64SP = 31
	ARM64PC = 32
)

// MaxRegs is the number of registers that Regs holds.
const MaxRegs = 33

// Regs is a set of general registers, indexed by DWARF register number. A
// register whose value an unwinder could not recover is not valid, which is
// not the same as zero.
type Regs struct {
	Arch  Arch
	value [MaxRegs]uint64
	valid uint64
	// TLS is the thread pointer: fs_base on x86-64, tpidr_el0 on arm64.
	TLS Addr
	// OrigSyscall is orig_rax on x86-64: the number of the system call the
	// thread is in, or -1.
	OrigSyscall int64
}

// Get returns register n and whether its value is known.
func (r *Regs) Get(n int) (uint64, bool) {
	if n < 0 || n >= MaxRegs || r.valid&(1<<uint(n)) == 0 {
		return 0, false
	}
	return r.value[n], true
}

// Set gives register n a value.
func (r *Regs) Set(n int, v uint64) {
	if n < 0 || n >= MaxRegs {
		return
	}
	r.value[n] = v
	r.valid |= 1 << uint(n)
}

// Forget marks register n as unknown.
func (r *Regs) Forget(n int) {
	if n < 0 || n >= MaxRegs {
		return
	}
	r.value[n] = 0
	r.valid &^= 1 << uint(n)
}

func (r *Regs) pcIndex() int {
	if r.Arch == ARM64 {
		return ARM64PC
	}
	return RIP
}

func (r *Regs) spIndex() int {
	if r.Arch == ARM64 {
		return ARM64SP
	}
	return RSP
}

// PC returns the program counter, 0 when unknown.
func (r *Regs) PC() Addr { v, _ := r.Get(r.pcIndex()); return Addr(v) }

// SetPC sets the program counter.
func (r *Regs) SetPC(a Addr) { r.Set(r.pcIndex(), uint64(a)) }

// SP returns the stack pointer, 0 when unknown.
func (r *Regs) SP() Addr { v, _ := r.Get(r.spIndex()); return Addr(v) }

// SetSP sets the stack pointer.
func (r *Regs) SetSP(a Addr) { r.Set(r.spIndex(), uint64(a)) }

// Arg returns the i-th integer argument of a function whose first instruction
// is about to run (System V: rdi, rsi, rdx, rcx, r8, r9; AAPCS64: x0 to x7).
func (r *Regs) Arg(i int) (uint64, bool) {
	if r.Arch == ARM64 {
		if i < 0 || i > 7 {
			return 0, false
		}
		return r.Get(i)
	}
	order := [...]int{RDI, RSI, RDX, RCX, R8, R9}
	if i < 0 || i >= len(order) {
		return 0, false
	}
	return r.Get(order[i])
}
