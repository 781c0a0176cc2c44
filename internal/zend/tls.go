package zend

import (
	"errors"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// A thread-safe PHP (ZTS) keeps all globals of a thread in one block, and a
// pointer to that block where only code running in the thread looks: in
// thread-local storage. No symbol table says where, but the engine's own
// functions that fetch the pointer do: their few instructions are followed
// here, on values instead of registers.

// slotKind says how a thread finds the pointer.
type slotKind uint8

const (
	noSlot     slotKind = iota
	atOffset            // at the thread pointer plus an offset
	inModule            // in a module's block, which the thread's vector leads to
	underAKey           // pthread_getspecific
	maxFetcher = 512    // bytes of code that are followed
)

// slot is where the threads of a process keep the pointer.
type slot struct {
	kind   slotKind
	off    uint64 // bytes from the thread pointer, or into the module's block
	module uint64 // number of the module with the block
	key    uint32
}

// fetchers are the functions that know the slot (TSRM/TSRM.c). The first
// returns the offset itself, the others the pointer. Of ts_resource_ex, which
// is all that 5.6 has, the first instructions are of interest.
var fetchers = []string{"tsrm_get_ls_cache_tcb_offset", "tsrm_get_ls_cache", "ts_resource_ex"}

// errNoSlot says that no fetcher could be followed.
var errNoSlot = errors.New("where its threads keep their globals can't be told")

// findSlots returns the slots that the fetchers name, likeliest first.
func findSlots(lookup func(string) (remote.Addr, uint64, bool), r remote.Reader) ([]slot, error) {
	var out []slot
	err := errNoSlot
	for i, name := range fetchers {
		at, size, ok := lookup(name)
		if !ok {
			continue
		}
		if size == 0 || size > maxFetcher {
			size = maxFetcher
		}
		code := make([]byte, size)
		if n, rerr := r.ReadMemory(code, at); rerr != nil && n == 0 {
			err = errors.Join(err, rerr)
			continue
		} else {
			code = code[:n]
		}
		m := newMachine(r, nil)
		s, ok := m.follow(code, at)
		if v := m.get(x86asm.RAX); !ok && i == 0 && v.kind == constant && v.n != 0 {
			s, ok = slot{kind: atOffset, off: v.n}, true
		}
		if ok {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, err
	}
	return out, nil
}

// valueKind says what is known of a register.
type valueKind uint8

const (
	unknown   valueKind = iota
	constant            // n
	ofThread            // the thread pointer plus n
	addressOf           // n, computed relative to the program counter
)

type value struct {
	kind valueKind
	n    uint64
	key  bool // loaded as 32 bits from memory
}

// machine follows straight code. It ends where the thread's block is fetched,
// or, given a thread whose block is known, goes on with that to the function's
// end: ref is then what was last read, and rax what is returned.
type machine struct {
	mem  remote.Reader
	th   *Thread
	regs map[x86asm.Reg]value
	ref  remote.Addr
}

func newMachine(r remote.Reader, th *Thread) *machine {
	return &machine{mem: r, th: th, regs: make(map[x86asm.Reg]value)}
}

func (m *machine) get(r x86asm.Reg) value { return m.regs[wide(r)] }

// wide is the 64-bit register that a 32-bit one is the lower half of.
func wide(r x86asm.Reg) x86asm.Reg {
	if r >= x86asm.EAX && r <= x86asm.R15L {
		return r - x86asm.EAX + x86asm.RAX
	}
	return r
}

// follow goes through code until it loads through the thread pointer, calls,
// or returns. With a thread, ok says that it returned.
func (m *machine) follow(code []byte, at remote.Addr) (slot, bool) {
	for off := 0; off < len(code); {
		if isEndbr64(code[off:]) {
			off += 4
			continue
		}
		in, err := x86asm.Decode(code[off:], 64)
		if err != nil {
			return slot{}, false
		}
		off += in.Len
		next := at + remote.Addr(off)
		switch in.Op {
		case x86asm.RET:
			return slot{}, m.th != nil
		case x86asm.CALL, x86asm.JMP:
			s, ok := m.called(in)
			if m.th == nil || in.Op == x86asm.JMP {
				return s, ok && m.th == nil
			}
			m.fetched(s, ok)
		case x86asm.MOV, x86asm.MOVZX, x86asm.MOVSX, x86asm.MOVSXD:
			if s, ok := m.load(in, next); ok {
				return s, true
			}
		case x86asm.LEA:
			if dst, ok := in.Args[0].(x86asm.Reg); ok {
				m.regs[wide(dst)] = m.address(in.Args[1].(x86asm.Mem), next)
			}
		case x86asm.ADD:
			if dst, ok := in.Args[0].(x86asm.Reg); ok {
				v, by := m.get(dst), m.operand(in, 1, next)
				v.n += by.n
				if by.kind != constant {
					v = value{}
				}
				m.regs[wide(dst)] = v
			}
		case x86asm.SUB:
			if dst, ok := in.Args[0].(x86asm.Reg); ok {
				v, by := m.get(dst), m.operand(in, 1, next)
				v.n -= by.n
				if by.kind != constant {
					v = value{}
				}
				m.regs[wide(dst)] = v
			}
		}
	}
	return slot{}, false
}

// isEndbr64 recognises the landing pad that compilers put at the beginning of
// functions (-fcf-protection). The decoder takes it for a lone REP, without an
// error, and an instruction that it doesn't know.
func isEndbr64(code []byte) bool {
	return len(code) >= 4 && [4]byte(code[:4]) == [4]byte{0xf3, 0x0f, 0x1e, 0xfa}
}

// fetched goes on behind the call that gets the thread's block. __tls_get_addr
// and TLS descriptors return where the pointer to it is, other fetchers the
// pointer.
func (m *machine) fetched(s slot, ok bool) {
	clear(m.regs)
	v := value{kind: constant, n: uint64(m.th.block)}
	if ok && s.kind != underAKey {
		v = value{kind: ofThread}
	}
	m.regs[x86asm.RAX] = v
}

// called looks at what a call is given: the key of pthread_getspecific, the
// tls_index of __tls_get_addr, or a TLS descriptor in rax.
func (m *machine) called(in x86asm.Inst) (slot, bool) {
	arg := m.get(x86asm.RDI)
	if _, indirect := in.Args[0].(x86asm.Mem); indirect {
		if d := m.get(x86asm.RAX); d.kind == addressOf {
			arg = d
			if off, err := remote.Uint64(m.mem, remote.Addr(d.n)+8); err == nil && int64(off) < 0 {
				return slot{kind: atOffset, off: off}, true
			}
		}
	}
	switch {
	case arg.kind == constant && arg.key:
		return slot{kind: underAKey, key: uint32(arg.n)}, true
	case arg.kind == addressOf:
		mod, err1 := remote.Uint64(m.mem, remote.Addr(arg.n))
		off, err2 := remote.Uint64(m.mem, remote.Addr(arg.n)+8)
		if err1 == nil && err2 == nil && mod != 0 && mod < maxModules {
			return slot{kind: inModule, module: mod, off: off}, true
		}
	}
	return slot{}, false
}

// load follows a MOV; ok when it loads the pointer itself.
func (m *machine) load(in x86asm.Inst, next remote.Addr) (slot, bool) {
	dst, ok := in.Args[0].(x86asm.Reg)
	if !ok {
		return slot{}, false
	}
	if mem, ok := in.Args[1].(x86asm.Mem); ok {
		a := m.address(mem, next)
		if a.kind == ofThread && (mem.Segment != x86asm.FS || a.n != 0) {
			if m.th != nil {
				m.regs[wide(dst)] = value{kind: constant, n: uint64(m.th.block)}
				return slot{}, false
			}
			return slot{kind: atOffset, off: a.n}, true
		}
	}
	m.regs[wide(dst)] = m.operand(in, 1, next)
	return slot{}, false
}

// operand is the value of an instruction's argument.
func (m *machine) operand(in x86asm.Inst, i int, next remote.Addr) value {
	switch a := in.Args[i].(type) {
	case x86asm.Imm:
		return value{kind: constant, n: uint64(a)}
	case x86asm.Reg:
		return m.get(a)
	case x86asm.Mem:
		at := m.address(a, next)
		if at.kind == ofThread { // fs:0 holds the thread pointer itself
			return at
		}
		if at.kind != addressOf {
			return value{}
		}
		m.ref = remote.Addr(at.n)
		if in.MemBytes == 1 {
			n, err := remote.Uint8(m.mem, m.ref)
			if err != nil {
				return value{}
			}
			return value{kind: constant, n: uint64(n)}
		}
		if in.MemBytes == 4 {
			n, err := remote.Uint32(m.mem, remote.Addr(at.n))
			if err != nil {
				return value{}
			}
			return value{kind: constant, n: uint64(n), key: true}
		}
		n, err := remote.Uint64(m.mem, remote.Addr(at.n))
		if err != nil {
			return value{}
		}
		return value{kind: constant, n: n}
	}
	return value{}
}

// address is where a memory operand lies.
func (m *machine) address(a x86asm.Mem, next remote.Addr) value {
	if a.Index != 0 {
		index := m.get(a.Index)
		if index.kind != constant {
			return value{}
		}
		a.Index, a.Disp = 0, a.Disp+int64(index.n)*int64(a.Scale)
		return m.address(a, next)
	}
	if a.Base == x86asm.RIP {
		return value{kind: addressOf, n: uint64(next) + uint64(a.Disp)}
	}
	v := value{kind: constant}
	if a.Base != 0 {
		v = m.get(a.Base)
	}
	v.n += uint64(a.Disp)
	switch {
	case a.Segment == x86asm.FS && v.kind == constant:
		v.kind = ofThread
	case a.Base == 0 && a.Segment == 0: // an absolute address
		v.kind = addressOf
	case v.kind == constant:
		v.kind = addressOf
	}
	return v
}

// The beginnings of a thread's descriptor, to which the thread pointer points.
const (
	dtvAt = 8 // the vector of modules' blocks, in glibc and musl
	// pthread_getspecific's first block in glibc's struct pthread (nptl/descr.h):
	// pairs of a sequence number and the datum, the same since 2.3.
	specificAt, specificBlock = 0x310, 32
)

// find reads the pointer of the thread whose thread pointer is tls. The
// vector's entries are of 16 bytes in glibc and of 8 in musl, so there may be
// two candidates; who asks can tell which is right.
func (s slot) find(r remote.Reader, tls remote.Addr) []remote.Addr {
	var at []remote.Addr
	switch s.kind {
	case atOffset:
		at = append(at, tls+remote.Addr(s.off))
	case underAKey:
		if s.key < specificBlock {
			at = append(at, tls+specificAt+remote.Addr(s.key)*16+8)
		}
	case inModule:
		dtv, err := remote.Pointer(r, tls+dtvAt)
		if err != nil {
			return nil
		}
		for _, entry := range []remote.Addr{16, 8} {
			if block, err := remote.Pointer(r, dtv+remote.Addr(s.module)*entry); err == nil && block != 0 {
				at = append(at, block+remote.Addr(s.off))
			}
		}
	}
	var out []remote.Addr
	for _, a := range at {
		if p, err := remote.Pointer(r, a); err == nil && p != 0 && p%8 == 0 {
			out = append(out, p)
		}
	}
	return out
}

func (s slot) String() string {
	switch s.kind {
	case atOffset:
		return fmt.Sprintf("thread pointer%+d", int64(s.off))
	case underAKey:
		return fmt.Sprintf("key %d", s.key)
	case inModule:
		return fmt.Sprintf("module %d%+d", s.module, int64(s.off))
	}
	return "nowhere"
}
