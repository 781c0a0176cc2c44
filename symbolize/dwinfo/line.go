package dwinfo

import (
	"slices"
	"sync"
)

type lineKey struct {
	off      int
	addrSize int8
	compDir  string
}

type lazyLines struct {
	once sync.Once
	p    *lineProgram
	err  error
}

// lineRow is what the line table says about an address.
type lineRow struct {
	file, line int
}

// lineProgram is one unit's line table (6.2). Delve's pkg/dwarf/line would be
// as fast, but names another line than gdb at 128 of 1,000 addresses of php,
// lacks 64-bit DWARF, and panics on bad input. The program is executed once,
// which leaves a checkpoint every checkpointRows rows; a lookup resumes at the
// nearest one. Decoded rows would take 20 times the memory and no less time.
type lineProgram struct {
	lineHeader
	code []byte // .debug_line up to the program's end
	body int    // of the first opcode

	once  sync.Once
	marks []lineState
	seqs  []lineSeq // sorted by lo
	err   error
}

// lineSeq is a run of rows with ascending addresses, [lo, hi).
type lineSeq struct {
	lo, hi      uint64
	first, last int // in marks, half open
}

const checkpointRows = 64

// lines returns the unit's line table, nil when it has none.
func (u *unit) lines() (*lineProgram, error) {
	if !u.stmtList.present() {
		return nil, nil
	}
	sec, err := u.f.sectionTo(secLine, int(min(u.stmtList.u, 1<<40))+maxUnitHeader)
	if err != nil {
		return nil, err
	}
	if u.stmtList.u >= uint64(len(sec)) {
		return nil, malformed(".debug_line", len(sec), "line table past the end")
	}
	key := lineKey{int(u.stmtList.u), u.p.addrSize, u.compDir}
	l := cached(&u.f.mu, u.f.lines, key)
	l.once.Do(func() { l.p, l.err = u.parseLineHeader(sec, key.off) })
	return l.p, l.err
}

// rowAt returns the row for pc, false when no sequence covers it. An error may
// accompany a row: what follows the row could not be decoded.
func (lp *lineProgram) rowAt(pc uint64) (row lineRow, found bool, err error) {
	lp.once.Do(lp.execute)
	// Sequences of discarded functions may lie at address 0 (ld); the one
	// that begins last is the one that belongs to living code.
	i, _ := slices.BinarySearchFunc(lp.seqs, pc, func(s lineSeq, pc uint64) int {
		if s.lo <= pc {
			return -1
		}
		return 1
	})
	for n := 0; i > 0 && n < maxSeqOverlap; n++ {
		i--
		s := &lp.seqs[i]
		if pc >= s.hi {
			continue
		}
		marks := lp.marks[s.first:s.last]
		j, _ := slices.BinarySearchFunc(marks, pc, func(m lineState, pc uint64) int {
			if m.addr <= pc {
				return -1
			}
			return 1
		})
		if j == 0 {
			continue
		}
		st := marks[j-1] // a copy
		c := cursor{b: lp.code, p: st.pos}
		for {
			before := st.best
			if !st.step(lp, &c) || st.end || st.addr > pc || st.addr < st.lastAddr {
				return before, before.line != 0, lp.err
			}
			st.record()
		}
	}
	return lineRow{}, false, lp.err
}

// execute runs the program once and notes sequences and checkpoints.
func (lp *lineProgram) execute() {
	var st lineState
	st.reset(lp)
	c := cursor{b: lp.code, p: lp.body}
	open := false
	var seq lineSeq
	rows := 0
	lp.marks = make([]lineState, 0, (len(lp.code)-lp.body)/(4*checkpointRows)+1) // a row takes 2 to 5 bytes
	closeSeq := func(hi uint64) {
		if seq.hi, seq.last = hi, len(lp.marks); open && seq.lo < seq.hi {
			lp.seqs = append(lp.seqs, seq)
		}
		open = false
	}
	for st.step(lp, &c) {
		if open && st.addr < st.lastAddr {
			// Addresses only grow inside a sequence (6.2.5); where they
			// don't, what follows counts as a sequence of its own.
			closeSeq(st.lastAddr + 1)
			st.forget()
		}
		if st.end {
			closeSeq(st.addr)
			st.reset(lp)
			continue
		}
		first := !open
		if first {
			open, rows = true, 0
			seq = lineSeq{lo: st.addr, first: len(lp.marks)}
		}
		grew := first || st.addr > st.lastAddr
		st.record()
		if rows++; grew && (first || rows >= checkpointRows) {
			st.pos = c.p
			lp.marks = append(lp.marks, st)
			rows = 0
		}
	}
	if open { // without DW_LNE_end_sequence the last row's extent is unknown
		closeSeq(st.lastAddr + 1)
	}
	if c.bad {
		lp.err = malformed(".debug_line", lp.body, "line number program cut short, or with an opcode that can't be skipped")
	}
	slices.SortStableFunc(lp.seqs, func(a, b lineSeq) int {
		switch {
		case a.lo < b.lo:
			return -1
		case a.lo > b.lo:
			return 1
		}
		return 0
	})
}
