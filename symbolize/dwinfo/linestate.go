package dwinfo

// lineState is the line number state machine (6.2.2) together with the row
// that gdb would report for the current address.
type lineState struct {
	pos     int // in .debug_line, of the next opcode; for checkpoints
	addr    uint64
	opIndex uint64
	file    int
	line    int
	discr   uint64
	isStmt  bool
	end     bool

	rowEmulation
}

// rowEmulation picks one of several rows at an address as gdb 13 does
// (lnp_state_machine::record_line and dwarf_record_line_p in
// gdb/dwarf2/read.c, find_pc_sect_line in gdb/symtab.c):
//   - a row of line 0 does not count: the previous row goes on;
//   - a row with is_stmt false that changes the file does not count when a
//     row with is_stmt true came before it at the same address;
//   - a row of the same file and line with a discriminator is no new row;
//   - the last row at an address wins, except that one with is_stmt true is
//     not replaced by one of the same file with is_stmt false.
type rowEmulation struct {
	best       lineRow
	bestAddr   uint64
	bestIsStmt bool

	lastFile, lastLine int
	lastAddr           uint64
	stmtAtAddr         bool
	discrSeen          bool
	any                bool // a row has been recorded in this sequence
}

func (s *lineState) reset(lp *lineProgram) {
	*s = lineState{file: 1, line: 1, isStmt: lp.defaultIsStmt}
	s.lastFile = -1
}

// forget drops the rows seen, as at the start of a sequence.
func (s *lineState) forget() { s.rowEmulation = rowEmulation{lastFile: -1} }

// record applies the row that step produced.
func (s *lineState) record() {
	if s.opIndex != 0 {
		return // gdb: rows inside of a VLIW bundle have no address
	}
	file := s.file
	changed := file != s.lastFile
	sameAddr := s.any && s.lastAddr == s.addr
	ignore := s.line == 0 || (changed && sameAddr && !s.isStmt && s.stmtAtAddr)
	if !ignore {
		if changed || s.line != s.lastLine || !s.discrSeen {
			keep := s.any && s.bestAddr == s.addr && s.best.file == file && s.bestIsStmt && !s.isStmt
			if !keep {
				s.best = lineRow{file: file, line: s.line}
				s.bestAddr = s.addr
				s.bestIsStmt = s.isStmt
			}
		}
		s.lastFile, s.lastLine = file, s.line
	}
	if !sameAddr {
		s.stmtAtAddr = false
		s.lastAddr = s.addr
	}
	s.stmtAtAddr = s.stmtAtAddr || s.isStmt
	s.any = true
}

const (
	lnsCopy           = 1
	lnsAdvancePC      = 2
	lnsAdvanceLine    = 3
	lnsSetFile        = 4
	lnsSetColumn      = 5
	lnsNegateStmt     = 6
	lnsBasicBlock     = 7
	lnsConstAddPC     = 8
	lnsFixedAdvancePC = 9
	lnsPrologueEnd    = 10
	lnsEpilogueBegin  = 11
	lnsSetISA         = 12

	lneEndSequence      = 1
	lneSetAddress       = 2
	lneSetDiscriminator = 4
)

// step executes opcodes until one produces a row; false at the end of the
// program or at an error, which c tells. The state after a row that ends a
// sequence is to be reset by the caller.
func (s *lineState) step(lp *lineProgram, c *cursor) bool {
	for c.p < len(c.b) {
		op := c.b[c.p]
		c.p++
		if op >= lp.opcodeBase { // special opcode (6.2.5.1)
			sp := &lp.special[op]
			s.advance(lp, uint64(sp.ops))
			s.advanceLine(int(sp.line))
			// gdb clears it after the row; no one looks in between.
			s.discr = 0
			return true
		}
		switch op {
		case 0:
			if row := s.extended(lp, c); row {
				return true
			}
		case lnsCopy:
			s.discr = 0
			return true
		case lnsAdvancePC:
			s.advance(lp, c.uleb())
		case lnsAdvanceLine:
			s.advanceLine(int(int32(c.sleb())))
		case lnsSetFile:
			s.file = lp.canonical(c.uleb())
		case lnsNegateStmt:
			s.isStmt = !s.isStmt
		case lnsConstAddPC:
			s.advance(lp, uint64(lp.special[255].ops))
		case lnsFixedAdvancePC:
			s.addr += uint64(c.u16())
			s.opIndex = 0
		case lnsBasicBlock, lnsPrologueEnd, lnsEpilogueBegin:
		case lnsSetColumn, lnsSetISA:
			c.skipLEB()
		default: // the header says how many operands to skip (6.2.4)
			for n := lp.opLengths[op-1]; n > 0; n-- {
				c.skipLEB()
			}
		}
	}
	return false
}

// extended executes an extended opcode (6.2.5.3) and reports whether it
// produced a row.
func (s *lineState) extended(lp *lineProgram, c *cursor) bool {
	arg := c.bytes(c.uleb())
	if len(arg) == 0 {
		return false // some assemblers pad with these
	}
	x := cursor{b: arg, p: 1}
	switch arg[0] {
	case lneEndSequence:
		s.end = true
		return !c.bad
	case lneSetAddress:
		// A wrong size would desynchronise nothing, but the address is lost.
		if s.addr = x.uint(len(arg) - 1); x.bad {
			c.fail()
		}
		s.opIndex = 0
	case lneSetDiscriminator:
		s.discr = x.uleb()
		s.discrSeen = s.discrSeen || s.discr != 0
	}
	return false
}

func (s *lineState) advanceLine(delta int) {
	s.line += delta
	if s.line < 0 || s.line > 1<<31-1 {
		s.line = 0
	}
	if delta != 0 {
		s.discrSeen = s.discr != 0
	}
}

// advance moves by n operations: instructions, on machines that are not VLIW.
func (s *lineState) advance(lp *lineProgram, n uint64) {
	if lp.maxOps <= 1 {
		s.addr += n * uint64(lp.minInst)
		return
	}
	n += s.opIndex
	s.addr += uint64(lp.minInst) * (n / uint64(lp.maxOps))
	s.opIndex = n % uint64(lp.maxOps)
}
