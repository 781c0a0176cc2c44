package symbolize

import (
	"github.com/phpwhy/phpwhy/symbolize/cfi"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Source says where a register's value in a frame was taken from.
type Source uint8

// The sources. Fixed is a value that follows from what the walk hangs on
// anyway, such as a frame's address.
const (
	Unknown Source = iota
	Fixed
	Register // of the innermost frame
	Word     // of memory
)

// Origin is where a value came from.
type Origin struct {
	Source Source
	Reg    int         // of Register
	At     remote.Addr // of Word: eight bytes there
}

// Origins are all that a walk hangs on. A walk from registers and memory that
// agree in these finds the same frames at the same addresses, whatever else
// there is in them.
type Origins struct {
	Regs  []int         // of the innermost frame; its stack pointer and program counter come in addition
	Words []remote.Addr // of memory, eight bytes each
	// Kept says of each frame where the registers came from that were asked
	// for, in that order.
	Kept [][]Origin
}

// Origins finds out what a walk hangs on. ok is false where that is more than
// words and registers: a walk that went by anything but tables of offsets, or
// did not reach the thread's first function.
func (img *Image) Origins(w *Walk, keep ...int) (o Origins, ok bool) {
	if w.End != Root || w.Err != nil {
		return o, false
	}
	t := tracking{out: &o}
	for n := range t.cur {
		t.cur[n] = Origin{Source: Register, Reg: n}
	}
	for i := range w.Frames {
		f := &w.Frames[i]
		kept := make([]Origin, len(keep))
		for k, n := range keep {
			kept[k] = t.cur[n]
		}
		o.Kept = append(o.Kept, kept)
		last := i == len(w.Frames)-1
		row := img.rowOf(f)
		switch {
		case row == nil && i == 0 && !last && w.Frames[1].How == HowEntry && f.CFA == f.Regs.SP()+8:
			// A function's first instruction: only the return address is there.
			o.Words = append(o.Words, f.Regs.SP())
			t.cur[remote.RSP] = Origin{Source: Fixed}
		case row == nil || !last && w.Frames[i+1].How != HowCFI || !t.follow(f, row, last):
			return o, false
		}
	}
	return o, true
}

// rowOf is the row that caller applied to a frame.
func (img *Image) rowOf(f *PhysicalFrame) *cfi.Row {
	p := img.find(f.Lookup())
	if p == nil || f.Unplaced {
		return nil
	}
	m, err := img.load(p)
	if err != nil {
		return nil
	}
	row, err := m.row(uint64(f.Lookup()) - p.bias)
	if err != nil {
		return nil
	}
	return row
}

// tracking goes from frame to frame as apply does, with origins for values.
type tracking struct {
	cur [remote.MaxRegs]Origin
	out *Origins
}

// use notes that a value decides.
func (t *tracking) use(o Origin) bool {
	switch o.Source {
	case Register:
		t.out.Regs = append(t.out.Regs, o.Reg)
	case Word:
		t.out.Words = append(t.out.Words, o.At)
	case Unknown:
		return false
	case Fixed:
	}
	return true
}

// follow goes on to the caller of f.
func (t *tracking) follow(f *PhysicalFrame, row *cfi.Row, last bool) bool {
	if row.CFAExpr != nil || row.CFAReg < 0 || row.CFAReg >= remote.MaxRegs || row.RA < 0 || row.RA >= cfi.MaxReg {
		return false
	}
	if !t.use(t.cur[row.CFAReg]) {
		return false
	}
	var next [remote.MaxRegs]Origin
	for _, n := range calleeSaved {
		next[n] = t.cur[n]
	}
	next[remote.RSP] = Origin{Source: Fixed}
	for n := range row.Regs {
		if rule := &row.Regs[n]; rule.Kind != cfi.Unspecified && n != row.RA {
			next[n] = t.value(n, rule, f.CFA)
		}
	}
	ra := &row.Regs[row.RA]
	switch {
	case ra.Kind == cfi.Undefined:
		if !last {
			return false
		}
	case ra.Kind == cfi.Offset:
		t.use(t.value(row.RA, ra, f.CFA))
	default:
		return false
	}
	t.cur = next
	return true
}

func (t *tracking) value(n int, r *cfi.Rule, cfa remote.Addr) Origin {
	switch r.Kind {
	case cfi.SameValue, cfi.Unspecified:
		return t.cur[n]
	case cfi.Register:
		if r.N >= 0 && r.N < remote.MaxRegs {
			return t.cur[r.N]
		}
	case cfi.ValOffset:
		return Origin{Source: Fixed}
	case cfi.Offset:
		return Origin{Source: Word, At: cfa + remote.Addr(r.N)}
	case cfi.Undefined, cfi.Expression, cfi.ValExpression:
	}
	return Origin{}
}
