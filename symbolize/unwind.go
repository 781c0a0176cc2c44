package symbolize

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/cfi"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// MaxFrames bounds a walk. PHP recursion through usort and the like nests
// native frames some six per call.
const MaxFrames = 16384

// The reasons why a walk is truncated.
var (
	ErrNoUnwindInfo = errors.New("no call-frame information and no frame pointer to follow")
	ErrNoProgress   = errors.New("the stack does not get shallower")
	ErrTooDeep      = fmt.Errorf("more than %d frames", MaxFrames)
	ErrNotCode      = errors.New("return address is not in code")
)

// Unwind walks the stack from registers, reading it through mem. The walk
// ends at a frame without a return address (root) or at the first thing that
// can't be true (truncated).
func (img *Image) Unwind(regs remote.Regs, mem remote.Reader) Walk {
	return img.walk(PhysicalFrame{PC: regs.PC(), Exact: true, Regs: regs, How: HowEntry}, mem)
}

// Resume walks a stack that was switched away from: the program counter in
// regs is where the switch will return to.
func (img *Image) Resume(regs remote.Regs, mem remote.Reader) Walk {
	return img.walk(PhysicalFrame{PC: regs.PC(), Regs: regs, How: HowCFI}, mem)
}

func (img *Image) walk(cur PhysicalFrame, mem remote.Reader) Walk {
	w := Walk{End: Truncated}
	for {
		if len(w.Frames) == MaxFrames {
			w.Err = ErrTooDeep
			return w
		}
		next, root, err := img.caller(&cur, mem)
		w.Frames = append(w.Frames, cur)
		if err != nil {
			w.Err = fmt.Errorf("behind frame %d at %s: %w", len(w.Frames)-1, cur.PC, err)
			return w
		}
		if root {
			w.End = Root
			return w
		}
		cur = next
	}
}

// caller finds the frame that called cur, and completes cur's CFA and Entry.
func (img *Image) caller(cur *PhysicalFrame, mem remote.Reader) (next PhysicalFrame, root bool, err error) {
	pc := cur.Lookup()
	p := img.find(pc)
	var row *cfi.Row
	rowErr := error(cfi.ErrNoEntry)
	if p != nil {
		m, err := img.load(p)
		if err != nil {
			rowErr = err
		} else if row, rowErr = m.row(uint64(pc) - p.bias); rowErr == nil {
			cur.Entry = remote.Addr(row.Low + p.bias)
		}
	}
	if row != nil {
		return apply(cur, row, mem)
	}
	return img.withoutCFI(cur, p, mem, rowErr)
}

// calleeSaved are the registers that keep their value in a callee about which
// the table says nothing (System V ABI, AMD64: rbx, rbp, r12 to r15).
var calleeSaved = [...]int{remote.RBX, remote.RBP, remote.R12, remote.R13, remote.R14, remote.R15}

// apply computes the caller's registers by a row.
func apply(cur *PhysicalFrame, row *cfi.Row, mem remote.Reader) (PhysicalFrame, bool, error) {
	st := state{regs: &cur.Regs, mem: mem}
	cfa, err := st.cfa(row)
	if err != nil {
		return PhysicalFrame{}, false, err
	}
	cur.CFA = cfa
	next := PhysicalFrame{How: HowCFI, Exact: row.Signal}
	next.Regs = remote.Regs{Arch: cur.Regs.Arch, TLS: cur.Regs.TLS}
	for _, n := range calleeSaved {
		if v, ok := cur.Regs.Get(n); ok {
			next.Regs.Set(n, v)
		}
	}
	next.Regs.SetSP(cfa)
	for n := range row.Regs {
		rule := &row.Regs[n]
		if rule.Kind == cfi.Unspecified || n == row.RA {
			continue
		}
		v, known, err := st.value(n, rule, cfa)
		if err != nil && popped(cur, rule, cfa) {
			v, known = cur.Regs.Get(n)
			err = nil
		}
		switch {
		case err != nil || !known:
			// Losing one register need not end the walk; one that is
			// needed later is missed then.
			next.Regs.Forget(n)
		default:
			next.Regs.Set(n, v)
		}
	}
	if row.RA < 0 || row.RA >= cfi.MaxReg {
		return PhysicalFrame{}, false, fmt.Errorf("return address in column %d: %w", row.RA, cfi.ErrMalformed)
	}
	rule := &row.Regs[row.RA]
	if rule.Kind == cfi.Undefined {
		return PhysicalFrame{}, true, nil
	}
	ra, known, err := st.value(row.RA, rule, cfa)
	if err != nil {
		return PhysicalFrame{}, false, fmt.Errorf("return address: %w", err)
	}
	if !known || ra == 0 {
		return PhysicalFrame{}, true, nil
	}
	next.PC = remote.Addr(ra)
	next.Regs.SetPC(next.PC)
	// A caller's frame lies above its callee's; only a signal may have
	// switched to another stack.
	if sp := cur.Regs.SP(); cfa <= sp && !row.Signal && len(row.CFAExpr) == 0 {
		return PhysicalFrame{}, false, fmt.Errorf("%w: frame at %s, stack pointer %s", ErrNoProgress, cfa, sp)
	}
	return next, false, nil
}

// popped reports whether a register was saved below what is the stack pointer
// now. A function that is about to return has its registers back; gcc's tables
// go on naming the place on the stack, of which a copy need not have anything.
func popped(cur *PhysicalFrame, rule *cfi.Rule, cfa remote.Addr) bool {
	at, ok := cfa.Offset(rule.N)
	return ok && cur.Exact && rule.Kind == cfi.Offset && at < cur.Regs.SP()
}

// state evaluates rules in one frame; it is the cfi.Machine of expressions.
type state struct {
	regs *remote.Regs
	mem  remote.Reader
}

// Register implements cfi.Machine.
func (s state) Register(n int) (uint64, bool) { return s.regs.Get(n) }

// ReadUint implements cfi.Machine.
func (s state) ReadUint(at uint64, size int) (uint64, error) {
	var b [8]byte
	if err := remote.ReadFull(s.mem, b[:size], remote.Addr(at)); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

func (s state) cfa(row *cfi.Row) (remote.Addr, error) {
	if row.CFAExpr != nil {
		v, err := cfi.Eval(row.CFAExpr, s)
		return remote.Addr(v), err
	}
	v, ok := s.regs.Get(row.CFAReg)
	if !ok {
		return 0, fmt.Errorf("register %d, which locates the frame, is unknown", row.CFAReg)
	}
	cfa, ok := remote.Addr(v).Offset(row.CFAOffset)
	if !ok {
		return 0, fmt.Errorf("%w: frame at %#x%+d", ErrNoProgress, v, row.CFAOffset)
	}
	return cfa, nil
}

// value applies one register's rule.
func (s state) value(n int, r *cfi.Rule, cfa remote.Addr) (v uint64, known bool, err error) {
	switch r.Kind {
	case cfi.Undefined:
		return 0, false, nil
	case cfi.SameValue, cfi.Unspecified:
		v, known = s.regs.Get(n)
		return v, known, nil
	case cfi.Register:
		v, known = s.regs.Get(int(r.N))
		return v, known, nil
	case cfi.ValOffset:
		return uint64(cfa) + uint64(r.N), true, nil
	case cfi.Offset:
		v, err = s.ReadUint(uint64(cfa)+uint64(r.N), 8)
	case cfi.Expression:
		if v, err = cfi.Eval(r.Expr, s, uint64(cfa)); err == nil {
			v, err = s.ReadUint(v, 8)
		}
	case cfi.ValExpression:
		v, err = cfi.Eval(r.Expr, s, uint64(cfa))
	}
	return v, err == nil, err
}

// withoutCFI finds the caller of a function that no table describes: at its
// first instruction the return address is on top of the stack; elsewhere a
// frame pointer is followed when it looks like one.
func (img *Image) withoutCFI(cur *PhysicalFrame, p *placed, mem remote.Reader, why error) (PhysicalFrame, bool, error) {
	if cur.PC == 0 {
		return PhysicalFrame{}, true, nil
	}
	if m, ok := img.generated(cur.PC); ok {
		if next, ok := img.outOfGenerated(cur, m, mem); ok {
			return next, false, nil
		}
	}
	sp := cur.Regs.SP()
	if cur.Exact && p != nil && p.err == nil {
		if s, ok := p.mod.symbolAt(uint64(cur.PC)-p.bias, uint64(cur.PC)-p.bias); ok && s.Value == uint64(cur.PC)-p.bias {
			cur.Entry = cur.PC
			return img.linked(cur, mem, sp, HowEntry)
		}
	}
	if next, root, err := img.byFramePointer(cur, mem, sp); err == nil && (root || img.calls(next.PC, 0)) {
		return next, root, nil
	}
	cur.CFA = 0
	img.mu.Lock()
	hosts := img.hosts
	img.mu.Unlock()
	if next, ok := img.scan(cur, hosts, mem); ok {
		return next, false, nil
	}
	if img.isInitial(sp, mem) {
		return PhysicalFrame{}, true, nil
	}
	return PhysicalFrame{}, false, fmt.Errorf("%w: %w", ErrNoUnwindInfo, why)
}

// byFramePointer follows rbp when it looks like a frame pointer.
func (img *Image) byFramePointer(cur *PhysicalFrame, mem remote.Reader, sp remote.Addr) (PhysicalFrame, bool, error) {
	bp, ok := cur.Regs.Get(remote.RBP)
	if !ok || remote.Addr(bp) < sp || bp%8 != 0 {
		return PhysicalFrame{}, false, ErrNoUnwindInfo
	}
	saved, err := remote.Uint64(mem, remote.Addr(bp))
	if err != nil || saved != 0 && saved <= bp {
		return PhysicalFrame{}, false, ErrNoUnwindInfo
	}
	next, root, err := img.linked(cur, mem, remote.Addr(bp)+8, HowFramePointer)
	next.Regs.Set(remote.RBP, saved)
	return next, root, err
}

const (
	// maxStart bounds what a C library's start code has on the stack, in bytes.
	maxStart = 1024
	// maxArgc bounds the number of a program's arguments.
	maxArgc = 4096
)

// isInitial reports whether sp is so close to the program's arguments, which
// the kernel has put at the base of its stack, that only start code can be
// there: the argument count, as many pointers into the stack, and NULL
// (System V ABI, AMD64, "Process Initialization").
func (img *Image) isInitial(sp remote.Addr, mem remote.Reader) bool {
	m := img.maps.Find(sp)
	for off := remote.Addr(0); m != nil && off < maxStart; off += 8 {
		argc, err := remote.Uint64(mem, sp+off)
		if err != nil {
			return false
		}
		if argc == 0 || argc > maxArgc {
			continue
		}
		n := remote.Addr(0)
		for ; n < remote.Addr(argc); n++ {
			p, err := remote.Pointer(mem, sp+off+8+8*n)
			if err != nil || p <= sp || p >= m.End {
				break
			}
		}
		if end, err := remote.Uint64(mem, sp+off+8+8*n); n == remote.Addr(argc) && err == nil && end == 0 {
			return true
		}
	}
	return false
}

// linked makes the caller's frame from a return address at slot.
func (img *Image) linked(cur *PhysicalFrame, mem remote.Reader, slot remote.Addr, how How) (PhysicalFrame, bool, error) {
	ra, err := remote.Uint64(mem, slot)
	if err != nil {
		return PhysicalFrame{}, false, fmt.Errorf("return address: %w", err)
	}
	if ra == 0 {
		return PhysicalFrame{}, true, nil
	}
	if m := img.maps.Find(remote.Addr(ra)); m == nil || !m.Exec {
		return PhysicalFrame{}, false, fmt.Errorf("%w: %#x", ErrNotCode, ra)
	}
	cur.CFA = slot + 8
	next := PhysicalFrame{PC: remote.Addr(ra), How: how, Regs: cur.Regs}
	next.Regs.SetPC(next.PC)
	next.Regs.SetSP(slot + 8)
	if how == HowFramePointer {
		for _, n := range calleeSaved { // they may have been saved anywhere
			next.Regs.Forget(n)
		}
	}
	return next, false, nil
}
