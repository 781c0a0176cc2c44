package symbolize

import (
	"debug/elf"
	"path/filepath"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Code that a compiler has written into memory at run time, such as PHP's JIT
// and PCRE's, has no call-frame information. Two things still lead to its
// caller. An interpreter's JIT may go on in the interpreter's own frame: it was
// entered by a jump, and the interpreter's table applies (see Host). Otherwise
// the stack is searched for a return address. Both are guesses, so both must
// prove themselves: the address lies right behind a call instruction, and from
// there the walk goes on by call-frame information to the thread's first
// function.

const (
	// maxPad bounds what generated code may have on the stack below its
	// host's frame, in bytes.
	maxPad = 256
	// maxScan bounds the search for a return address, in bytes. PCRE's JIT
	// keeps its backtracking on a stack of its own and uses some 200 here.
	maxScan = 4 << 10
	// GeneratedModule stands for the module of code that no file contains.
	GeneratedModule = "[jit]"
)

// inNoFile reports whether a mapping holds generated code if it holds any:
// anonymous memory, or shared memory, as opcache's buffer is.
func inNoFile(m *remote.Mapping) bool {
	return m.Inode == 0 || m.Path == "/dev/zero" || strings.HasPrefix(m.Path, "/dev/zero ") ||
		strings.HasPrefix(m.Path, "/memfd:") || strings.HasPrefix(m.Path, "/SYSV") ||
		strings.HasPrefix(filepath.Base(m.Path), "anon_hugepage")
}

// Host names a function that jumps into generated code, which then goes on in
// the function's frame, as execute_ex of PHP's hybrid VM does.
func (img *Image) Host(entry remote.Addr) {
	p := img.find(entry)
	if p == nil {
		return
	}
	m, err := img.load(p)
	if err != nil {
		return
	}
	if h, ok := m.hostAt(uint64(entry) - p.bias); ok {
		h.entry, h.body = h.entry+remote.Addr(p.bias), h.body+remote.Addr(p.bias)
		img.mu.Lock()
		img.hosts = append(img.hosts, h)
		img.mu.Unlock()
	}
}

// host is a function that generated code runs in.
type host struct {
	entry remote.Addr
	body  remote.Addr // an address at which its frame is complete
	reg   int         // the frame is located there by this register plus offset
	off   int64
	size  remote.Addr // from the stack pointer to the frame's end, in bytes
}

// hostAt is host, once for all processes that have the module.
func (m *Module) hostAt(entry uint64) (host, bool) {
	m.mu.RLock()
	h, known := m.hosts[entry]
	m.mu.RUnlock()
	if !known {
		var ok bool
		if h, ok = m.host(entry); !ok {
			h = host{}
		}
		m.mu.Lock()
		if m.hosts == nil {
			m.hosts = make(map[uint64]host)
		}
		m.hosts[entry] = h
		m.mu.Unlock()
	}
	return h, h != host{}
}

// host finds how a function's frame looks in its body, in link-time addresses:
// by the rule that most of its code has.
func (m *Module) host(entry uint64) (host, bool) {
	m.cfiOnce.Do(m.loadCFI)
	if m.cfi == nil {
		return host{}, false
	}
	low, high, err := m.cfi.Function(entry)
	if err != nil || low != entry {
		return host{}, false
	}
	if m.file.Machine() != elf.EM_X86_64 {
		return host{entry: remote.Addr(entry)}, true // known by its address only
	}
	const samples = 64
	type rule struct {
		reg int
		off int64
	}
	seen, at := make(map[rule]int), make(map[rule]uint64)
	var best rule
	for pc := low; pc < high; pc += max(1, (high-low)/samples) {
		row, err := m.cfi.Row(pc)
		if err != nil || row.CFAExpr != nil {
			continue
		}
		r := rule{row.CFAReg, row.CFAOffset}
		seen[r]++
		at[r] = pc
		if seen[r] > seen[best] {
			best = r
		}
	}
	h := host{entry: remote.Addr(entry), body: remote.Addr(at[best]), reg: best.reg, off: best.off}
	switch {
	case seen[best] == 0:
		return h, false
	case best.reg == remote.RSP:
		h.size = remote.Addr(best.off)
	default:
		h.size = m.prologue(entry, high)
	}
	return h, h.size != 0
}

// prologue adds up what a function's first instructions put on the stack, with
// its return address; 0 when they don't make room for locals.
func (m *Module) prologue(low, high uint64) remote.Addr {
	code := make([]byte, min(high-low, 64))
	if m.file.ReadAddr(code, low) != nil {
		return 0
	}
	size := remote.Addr(8)
	for len(code) > 0 {
		if len(code) >= 4 && [4]byte(code) == [4]byte{0xf3, 0x0f, 0x1e, 0xfa} { // endbr64
			code = code[4:]
			continue
		}
		in, err := x86asm.Decode(code, 64)
		if err != nil {
			return 0
		}
		switch dst, _ := in.Args[0].(x86asm.Reg); {
		case in.Op == x86asm.PUSH:
			size += 8
		case in.Op == x86asm.SUB && dst == x86asm.RSP:
			n, ok := in.Args[1].(x86asm.Imm)
			if !ok || n < 0 {
				return 0
			}
			return size + remote.Addr(n)
		case in.Op != x86asm.MOV:
			return 0
		}
		code = code[in.Len:]
	}
	return 0
}

// generated reports whether pc lies in executable memory that belongs to no file.
func (img *Image) generated(pc remote.Addr) (*remote.Mapping, bool) {
	if img.find(pc) != nil {
		return nil, false
	}
	m := img.maps.Find(pc)
	return m, m != nil && m.Exec && inNoFile(m)
}

// outOfGenerated finds what called the generated code of cur, in the mapping m.
func (img *Image) outOfGenerated(cur *PhysicalFrame, m *remote.Mapping, mem remote.Reader) (PhysicalFrame, bool) {
	img.mu.Lock()
	hosts := img.hosts
	img.mu.Unlock()
	// A host shares its JIT's code with its other processes. Private memory is
	// a library's, whose code is called.
	if shared := m.Inode != 0; shared {
		if next, ok := img.toHost(cur, hosts, mem); ok {
			return next, true
		}
		return img.scan(cur, hosts, mem)
	}
	if next, ok := img.scan(cur, hosts, mem); ok {
		return next, true
	}
	return img.toHost(cur, hosts, mem)
}

// toHost takes the generated code to run in the frame of one of the hosts.
func (img *Image) toHost(cur *PhysicalFrame, hosts []host, mem remote.Reader) (PhysicalFrame, bool) {
	sp := cur.Regs.SP()
	for _, h := range hosts {
		for pad := remote.Addr(0); pad <= maxPad; pad += 8 {
			f := PhysicalFrame{PC: h.body, How: HowTailCall, Regs: cur.Regs, Exact: true, Unplaced: true}
			f.Regs.SetPC(h.body)
			f.Regs.SetSP(sp + pad)
			if h.reg != remote.RSP {
				f.Regs.Set(h.reg, uint64(sp+pad+h.size)-uint64(h.off))
			}
			next, root, err := img.caller(&f, mem)
			if err != nil || root || !img.calls(next.PC, h.entry) || !img.reachesRoot(next, mem) {
				continue
			}
			f.Entry, f.CFA = h.entry, 0
			cur.CFA = sp + pad
			return f, true
		}
	}
	return PhysicalFrame{}, false
}

// scan searches the stack for the return address.
func (img *Image) scan(cur *PhysicalFrame, hosts []host, mem remote.Reader) (PhysicalFrame, bool) {
	sp := cur.Regs.SP()
	for off := remote.Addr(0); off < maxScan; off += 8 {
		v, err := remote.Uint64(mem, sp+off)
		if err != nil {
			break
		}
		if !img.calls(remote.Addr(v), 0) {
			continue
		}
		next := PhysicalFrame{PC: remote.Addr(v), How: HowScan, Regs: cur.Regs}
		next.Regs.SetPC(next.PC)
		next.Regs.SetSP(sp + off + 8)
		cur.CFA = sp + off + 8
		// A system call's wrapper leaves the other registers alone; what
		// generated code has done with them is unknown, unless it was called
		// by its host, which knows.
		if _, generated := img.generated(cur.PC); !generated || img.inHost(hosts, next.PC) {
			if img.reachesRoot(next, mem) {
				return next, true
			}
		}
		for _, n := range calleeSaved {
			next.Regs.Forget(n)
		}
		if img.reachesRoot(next, mem) {
			return next, true
		}
	}
	cur.CFA = 0
	return PhysicalFrame{}, false
}

func (img *Image) inHost(hosts []host, pc remote.Addr) bool {
	for _, h := range hosts {
		p := img.find(pc)
		if p == nil || p != img.find(h.entry) {
			continue
		}
		if low, _, err := p.mod.cfi.Function(uint64(pc) - 1 - p.bias); err == nil && low == uint64(h.entry)-p.bias {
			return true
		}
	}
	return false
}

const (
	// maxProof bounds the walk that proves a guess, in frames.
	maxProof = 4096
	// provenBy is how many frames prove a guess where the walk ends at code
	// without a table: assembler at the bottom of a fiber's stack. Random words
	// lead to one or two frames at most.
	provenBy = 3
)

// reachesRoot walks on from a guessed frame. Every frame on the way must have
// made a call. Further generated code is proof enough: its own way out is
// proved when the walk gets there.
func (img *Image) reachesRoot(f PhysicalFrame, mem remote.Reader) bool {
	for n := range maxProof {
		if _, ok := img.generated(f.PC); ok {
			return n > 0
		}
		p := img.find(f.Lookup())
		if p == nil || !f.Exact && !img.calls(f.PC, 0) {
			return n >= provenBy && p != nil
		}
		m, err := img.load(p)
		if err != nil {
			return false
		}
		row, err := m.row(uint64(f.Lookup()) - p.bias)
		if err != nil {
			return n >= provenBy
		}
		next, root, err := img.apply(&f, row, mem)
		if root {
			return true
		}
		if err != nil {
			return false
		}
		f = next
	}
	return false
}
