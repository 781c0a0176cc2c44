package x86

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"
	"golang.org/x/sys/unix"
)

// MaxLen is the longest an instruction can be, in bytes (Intel SDM vol. 2, 2.3.11).
const MaxLen = 15

var (
	// ErrUndecoded says that the bytes are no instruction that is known here.
	ErrUndecoded = errors.New("unknown instruction")
	// ErrNotMovable says that an instruction depends on where it lies.
	ErrNotMovable = errors.New("instruction depends on its address")
)

// Regs are the general registers of a stopped thread.
type Regs = unix.PtraceRegs

// Store writes a word to the thread's stack.
type Store func(at, value uint64) error

// Insn is a decoded instruction.
type Insn struct {
	Len  int
	code [MaxLen]byte
	text string
	op   func(r *Regs, st Store) error // nil: not emulated
}

// Emulated reports whether Emulate can be used.
func (in *Insn) Emulated() bool { return in.op != nil }

func (in *Insn) String() string { return in.text }

// Bytes returns the instruction's code.
func (in *Insn) Bytes() []byte { return in.code[:in.Len] }

// Emulate does what the instruction would, when r.Rip stands on it.
func (in *Insn) Emulate(r *Regs, st Store) error {
	if in.op == nil {
		return fmt.Errorf("%w: %s", ErrUndecoded, in.text)
	}
	if err := in.op(r, st); err != nil {
		return err
	}
	r.Rip += uint64(in.Len)
	return nil
}

// Decode reads the instruction at the start of code.
func Decode(code []byte) (*Insn, error) {
	in := &Insn{}
	if len(code) >= 4 && code[0] == 0xf3 && code[1] == 0x0f && code[2] == 0x1e && (code[3] == 0xfa || code[3] == 0xfb) {
		// endbr64, endbr32: no-ops unless the process enforces IBT, which
		// Linux does not do for user space.
		in.Len, in.text = 4, "endbr64"
		in.op = func(*Regs, Store) error { return nil }
		copy(in.code[:], code[:4])
		return in, nil
	}
	d, err := x86asm.Decode(code, 64)
	if err != nil || d.Len == 0 || d.Len > MaxLen || d.Op == 0 {
		return nil, fmt.Errorf("%w: % x", ErrUndecoded, code[:min(len(code), MaxLen)])
	}
	in.Len = d.Len
	copy(in.code[:], code[:d.Len])
	in.text = x86asm.GNUSyntax(d, 0, nil)
	if !plain(&d) {
		return in, nil
	}
	in.op = operation(&d)
	return in, nil
}

// plain refuses prefixes other than REX, and the operand-size prefix of no-ops.
func plain(d *x86asm.Inst) bool {
	if d.Op == x86asm.NOP {
		return true
	}
	for _, p := range d.Prefix {
		if p == 0 {
			break
		}
		if !p.IsREX() && p&x86asm.PrefixImplicit == 0 {
			return false
		}
	}
	return true
}

// place is a register operand of 32 or 64 bits.
type place struct {
	get  func(r *Regs) *uint64
	size int
}

func (p place) read(r *Regs) uint64 {
	v := *p.get(r)
	if p.size == 32 {
		v = uint64(uint32(v))
	}
	return v
}

// write stores v; a 32-bit result clears the upper half.
func (p place) write(r *Regs, v uint64) {
	if p.size == 32 {
		v = uint64(uint32(v))
	}
	*p.get(r) = v
}

func operation(d *x86asm.Inst) func(*Regs, Store) error {
	switch d.Op {
	case x86asm.NOP:
		return func(*Regs, Store) error { return nil }
	case x86asm.PUSH:
		return push(d)
	case x86asm.LEA:
		return lea(d)
	}
	dst, ok := register(d.Args[0])
	if !ok || d.Args[2] != nil {
		return nil
	}
	src, ok := value(d.Args[1], dst.size)
	if !ok {
		return nil
	}
	if d.Op == x86asm.MOV {
		return func(r *Regs, _ Store) error { dst.write(r, src(r)); return nil }
	}
	return arithmetic(d.Op, dst, src)
}

func arithmetic(op x86asm.Op, dst place, src func(*Regs) uint64) func(*Regs, Store) error {
	var f func(a, b uint64, size int) (uint64, uint64)
	keep := false // only the flags are wanted
	switch op {
	case x86asm.SUB:
		f = sub
	case x86asm.CMP:
		f, keep = sub, true
	case x86asm.ADD:
		f = add
	case x86asm.AND:
		f = logic(func(a, b uint64) uint64 { return a & b })
	case x86asm.TEST:
		f, keep = logic(func(a, b uint64) uint64 { return a & b }), true
	case x86asm.OR:
		f = logic(func(a, b uint64) uint64 { return a | b })
	case x86asm.XOR:
		f = logic(func(a, b uint64) uint64 { return a ^ b })
	default:
		return nil
	}
	return func(r *Regs, _ Store) error {
		v, flags := f(dst.read(r), src(r), dst.size)
		r.Eflags = r.Eflags&^StatusFlags | flags
		if !keep {
			dst.write(r, v)
		}
		return nil
	}
}

func push(d *x86asm.Inst) func(*Regs, Store) error {
	var src func(*Regs) uint64
	switch a := d.Args[0].(type) {
	case x86asm.Reg:
		p, ok := register(a)
		if !ok || p.size != 64 {
			return nil
		}
		src = p.read
	case x86asm.Imm:
		src = func(*Regs) uint64 { return uint64(a) }
	default:
		return nil
	}
	return func(r *Regs, st Store) error {
		// push rsp stores the value from before the push.
		if err := st(r.Rsp-8, src(r)); err != nil {
			return err
		}
		r.Rsp -= 8
		return nil
	}
}

func lea(d *x86asm.Inst) func(*Regs, Store) error {
	dst, ok := register(d.Args[0])
	m, isMem := d.Args[1].(x86asm.Mem)
	if !ok || !isMem || m.Segment != 0 || d.AddrSize != 64 || m.Base == x86asm.RIP {
		return nil
	}
	zero := func(*Regs) uint64 { return 0 }
	base, index := zero, zero
	if m.Base != 0 {
		p, ok := register(m.Base)
		if !ok {
			return nil
		}
		base = p.read
	}
	if m.Index != 0 && m.Scale != 0 {
		p, ok := register(m.Index)
		if !ok {
			return nil
		}
		scale := uint64(m.Scale)
		index = func(r *Regs) uint64 { return p.read(r) * scale }
	}
	return func(r *Regs, _ Store) error {
		dst.write(r, base(r)+index(r)+uint64(m.Disp))
		return nil
	}
}

// value is a register of the same size or an immediate.
func value(a x86asm.Arg, size int) (func(*Regs) uint64, bool) {
	switch a := a.(type) {
	case x86asm.Reg:
		p, ok := register(a)
		return p.read, ok && p.size == size
	case x86asm.Imm:
		v := uint64(a)
		if size == 32 {
			v = uint64(uint32(v))
		}
		return func(*Regs) uint64 { return v }, true
	}
	return nil, false
}

var fields = [16]func(r *Regs) *uint64{
	func(r *Regs) *uint64 { return &r.Rax }, func(r *Regs) *uint64 { return &r.Rcx },
	func(r *Regs) *uint64 { return &r.Rdx }, func(r *Regs) *uint64 { return &r.Rbx },
	func(r *Regs) *uint64 { return &r.Rsp }, func(r *Regs) *uint64 { return &r.Rbp },
	func(r *Regs) *uint64 { return &r.Rsi }, func(r *Regs) *uint64 { return &r.Rdi },
	func(r *Regs) *uint64 { return &r.R8 }, func(r *Regs) *uint64 { return &r.R9 },
	func(r *Regs) *uint64 { return &r.R10 }, func(r *Regs) *uint64 { return &r.R11 },
	func(r *Regs) *uint64 { return &r.R12 }, func(r *Regs) *uint64 { return &r.R13 },
	func(r *Regs) *uint64 { return &r.R14 }, func(r *Regs) *uint64 { return &r.R15 },
}

func register(a x86asm.Arg) (place, bool) {
	g, ok := a.(x86asm.Reg)
	switch {
	case !ok:
	case g >= x86asm.RAX && g <= x86asm.R15:
		return place{fields[g-x86asm.RAX], 64}, true
	case g >= x86asm.EAX && g <= x86asm.R15L:
		return place{fields[g-x86asm.EAX], 32}, true
	}
	return place{}, false
}

// Slot returns code that runs the instruction at another place and then jumps
// to next, the address after the original.
func (in *Insn) Slot(next uint64) ([]byte, error) {
	d, err := x86asm.Decode(in.Bytes(), 64)
	if in.text != "endbr64" {
		if err != nil {
			return nil, fmt.Errorf("%w: %s", ErrUndecoded, in.text)
		}
		if d.PCRel != 0 || usesRIP(&d) || in.transfers(&d) {
			return nil, fmt.Errorf("%w: %s", ErrNotMovable, in.text)
		}
	}
	code := append([]byte{}, in.Bytes()...)
	code = append(code, 0xff, 0x25, 0, 0, 0, 0) // jmp *0(%rip)
	return binary.LittleEndian.AppendUint64(code, next), nil
}

func usesRIP(d *x86asm.Inst) bool {
	for _, a := range d.Args {
		if m, ok := a.(x86asm.Mem); ok && (m.Base == x86asm.RIP || m.Base == x86asm.EIP) {
			return true
		}
	}
	return false
}

// transfers reports instructions that leave the straight line, or whose effect
// shows the address they ran at (a system call, a trap).
func (in *Insn) transfers(d *x86asm.Inst) bool {
	switch d.Op {
	case x86asm.CALL, x86asm.RET, x86asm.LRET, x86asm.LCALL, x86asm.LJMP, x86asm.JMP,
		x86asm.SYSCALL, x86asm.SYSENTER, x86asm.INT, x86asm.INTO, x86asm.UD1, x86asm.UD2,
		x86asm.HLT, x86asm.IRET, x86asm.IRETD, x86asm.IRETQ:
		return true
	}
	return false
}
