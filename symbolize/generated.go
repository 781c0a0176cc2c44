package symbolize

import (
	"encoding/binary"
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
	if body, ok := m.body(uint64(entry) - p.bias); ok {
		img.mu.Lock()
		img.hosts = append(img.hosts, host{entry, remote.Addr(body + p.bias)})
		img.mu.Unlock()
	}
}

type host struct {
	entry remote.Addr
	body  remote.Addr // an address at which its frame is complete
}

// body finds an address in a function where the frame has its full size: where
// the rule that most of the function's code has applies.
func (m *Module) body(entry uint64) (uint64, bool) {
	m.cfiOnce.Do(m.loadCFI)
	if m.cfi == nil {
		return 0, false
	}
	low, high, err := m.cfi.Function(entry)
	if err != nil || low != entry {
		return 0, false
	}
	const samples = 64
	seen, at := make(map[int64]int), make(map[int64]uint64)
	best := int64(0)
	for pc := low; pc < high; pc += max(1, (high-low)/samples) {
		row, err := m.cfi.Row(pc)
		if err != nil || row.CFAExpr != nil || row.CFAReg != remote.RSP {
			continue
		}
		seen[row.CFAOffset]++
		at[row.CFAOffset] = pc
		if seen[row.CFAOffset] > seen[best] {
			best = row.CFAOffset
		}
	}
	pc, ok := at[best]
	return pc, ok
}

// generated reports whether pc lies in executable memory that belongs to no file.
func (img *Image) generated(pc remote.Addr) (*remote.Mapping, bool) {
	if img.find(pc) != nil {
		return nil, false
	}
	m := img.maps.Find(pc)
	return m, m != nil && m.Exec && inNoFile(m)
}

// outOfGenerated finds what called the generated code of cur.
func (img *Image) outOfGenerated(cur *PhysicalFrame, mem remote.Reader) (PhysicalFrame, bool) {
	sp := cur.Regs.SP()
	img.mu.Lock()
	hosts := img.hosts
	img.mu.Unlock()
	for _, h := range hosts {
		for pad := remote.Addr(0); pad <= maxPad; pad += 8 {
			f := PhysicalFrame{PC: h.body, How: HowTailCall, Regs: cur.Regs, Exact: true, Unplaced: true}
			f.Regs.SetPC(h.body)
			f.Regs.SetSP(sp + pad)
			next, root, err := img.caller(&f, mem)
			if err != nil || root || !img.calls(next.PC, h.entry) || !img.reachesRoot(next, mem) {
				continue
			}
			f.Entry, f.CFA = h.entry, 0
			cur.CFA = sp + pad
			return f, true
		}
	}
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
		// What the generated code has done with the other registers is
		// unknown, unless it was called by its host, which knows.
		if !img.inHost(hosts, next.PC) {
			for _, n := range calleeSaved {
				next.Regs.Forget(n)
			}
		}
		if img.reachesRoot(next, mem) {
			cur.CFA = sp + off + 8
			return next, true
		}
	}
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

// maxProof bounds the walk that proves a guess, in frames.
const maxProof = 4096

// reachesRoot walks on from a guessed frame. Further generated code on the way
// is proof enough: its own way out is proved when the walk gets there.
func (img *Image) reachesRoot(f PhysicalFrame, mem remote.Reader) bool {
	for range maxProof {
		if _, ok := img.generated(f.PC); ok {
			return true
		}
		p := img.find(f.Lookup())
		if p == nil {
			return false
		}
		m, err := img.load(p)
		if err != nil {
			return false
		}
		row, err := m.row(uint64(f.Lookup()) - p.bias)
		if err != nil {
			// The bottom of a fiber's stack and a thread's first function may
			// be assembler without a table.
			return len(img.hosts) > 0 && f.Regs.SP() != 0 && img.atBottom(f, mem)
		}
		next, root, err := apply(&f, row, mem)
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

// atBottom reports whether nothing but a little alignment is left of the stack
// that f is on.
func (img *Image) atBottom(f PhysicalFrame, mem remote.Reader) bool {
	m := img.maps.Find(f.Regs.SP())
	if m == nil {
		return false
	}
	left, ok := m.End.Distance(f.Regs.SP())
	return ok && left <= 512
}

// calls reports whether pc is a return address: right behind a call, which for
// a known target (0: any) is to that or through a pointer.
func (img *Image) calls(pc, target remote.Addr) bool {
	p := img.find(pc)
	if p == nil || pc < p.code.Start+callMax {
		return false
	}
	m, err := img.load(p)
	if err != nil {
		return false
	}
	at := uint64(pc) - p.bias
	var b [callMax]byte
	if m.file.ReadAddr(b[:], at-callMax) != nil {
		return false
	}
	to, direct, ok := callBefore(b[:], at)
	if !ok || target == 0 || !direct {
		return ok
	}
	// Another module's function is called through its stub.
	if to+p.bias == uint64(target) {
		return true
	}
	s, ok := m.symbolAt(to, 0)
	return ok && strings.HasSuffix(s.Name, "@plt")
}

// callMax is the length of the longest call instruction without prefixes.
const callMax = 7

// callBefore looks for a call instruction that ends where b does, at the
// address end. direct is true for a call of a fixed address.
func callBefore(b []byte, end uint64) (to uint64, direct, ok bool) {
	if n := len(b); n >= 5 && b[n-5] == 0xe8 {
		rel := int32(binary.LittleEndian.Uint32(b[n-4:]))
		return end + uint64(int64(rel)), true, true
	}
	for n := 2; n <= min(callMax, len(b)); n++ {
		code := b[len(b)-n:]
		in, err := x86asm.Decode(code, 64)
		if err == nil && in.Len == n && in.Op == x86asm.CALL {
			return 0, false, true
		}
	}
	return 0, false, false
}
