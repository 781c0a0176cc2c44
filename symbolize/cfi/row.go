package cfi

// MaxReg is the number of register columns that are followed; rules for
// higher ones (vector registers) are of no use to an unwinder.
const MaxReg = 33

// RuleKind says how a register of the caller is found (DWARF 5, section 6.4.1).
type RuleKind uint8

// The rules. Unspecified means that the table says nothing: the ABI's
// callee-saved registers then keep their value.
const (
	Unspecified RuleKind = iota
	Undefined
	SameValue
	Offset     // saved at CFA+N
	ValOffset  // is CFA+N
	Register   // is register N
	Expression // saved at the expression's value
	ValExpression
)

// Rule is one register's rule.
type Rule struct {
	Kind RuleKind
	N    int64  // offset in bytes, or a register number
	Expr []byte // of Expression and ValExpression
}

// Row is the line of the table that holds at one address.
type Row struct {
	CFAReg    int // the CFA is this register plus CFAOffset, unless CFAExpr is set
	CFAOffset int64
	CFAExpr   []byte
	Regs      [MaxReg]Rule
	RA        int  // the column that holds the return address
	RASigned  bool // arm64: it carries a pointer authentication code
	Signal    bool // a signal handler's caller: its pc is not a return address
	Low, High uint64
}

// maxStateDepth bounds DW_CFA_remember_state; gcc nests once.
const maxStateDepth = 64

// Row returns the row for pc.
func (s *Section) Row(pc uint64) (Row, error) {
	f, err := s.find(pc)
	if err != nil {
		return Row{}, err
	}
	m := machine{sec: s, cie: f.cie, loc: f.low, pc: pc}
	m.row.CFAReg = -1
	if err := m.run(f.cie.program); err != nil {
		return Row{}, err
	}
	m.initial = m.row.Regs
	m.inFDE = true
	if err := m.run(f.program); err != nil {
		return Row{}, err
	}
	if m.row.CFAReg < 0 && m.row.CFAExpr == nil {
		return Row{}, malformed("no rule for the CFA at %#x", pc)
	}
	m.row.RA = f.cie.ra
	m.row.Signal = f.cie.signal
	m.row.Low, m.row.High = f.low, f.high
	return m.row, nil
}

// machine runs the instructions of a CIE and an FDE up to one address.
type machine struct {
	sec     *Section
	cie     *cie
	loc, pc uint64
	row     Row
	initial [MaxReg]Rule
	inFDE   bool
	stack   []Row
	done    bool
}

// Call-frame instructions (DWARF 5, table 7.29; GNU extensions).
const (
	cfaAdvanceLoc        = 0x40 // high two bits
	cfaOffset            = 0x80
	cfaRestore           = 0xc0
	cfaNop               = 0x00
	cfaSetLoc            = 0x01
	cfaAdvanceLoc1       = 0x02
	cfaAdvanceLoc2       = 0x03
	cfaAdvanceLoc4       = 0x04
	cfaOffsetExtended    = 0x05
	cfaRestoreExtended   = 0x06
	cfaUndefined         = 0x07
	cfaSameValue         = 0x08
	cfaRegister          = 0x09
	cfaRememberState     = 0x0a
	cfaRestoreState      = 0x0b
	cfaDefCFA            = 0x0c
	cfaDefCFARegister    = 0x0d
	cfaDefCFAOffset      = 0x0e
	cfaDefCFAExpression  = 0x0f
	cfaExpression        = 0x10
	cfaOffsetExtendedSF  = 0x11
	cfaDefCFASF          = 0x12
	cfaDefCFAOffsetSF    = 0x13
	cfaValOffset         = 0x14
	cfaValOffsetSF       = 0x15
	cfaValExpression     = 0x16
	cfaAARCH64NegateRAPC = 0x2c // DWARF for the Arm 64-bit Architecture, 5.6
	cfaAARCH64NegateRA   = 0x2d // also DW_CFA_GNU_window_save
	cfaGNUArgsSize       = 0x2e
	cfaGNUNegativeOffset = 0x2f
)

func (m *machine) run(program []byte) error {
	c := cursor{b: program}
	for c.left() > 0 && !m.done {
		op := c.u8()
		if err := m.step(op, &c); err != nil {
			return err
		}
		if c.bad {
			return malformed("instruction %#02x is cut off", op)
		}
	}
	return nil
}

func (m *machine) step(op uint8, c *cursor) error {
	low := uint64(op & 0x3f)
	switch op & 0xc0 {
	case cfaAdvanceLoc:
		m.advance(low)
		return nil
	case cfaOffset:
		m.set(low, Rule{Kind: Offset, N: int64(c.uleb()) * m.cie.dataAlign})
		return nil
	case cfaRestore:
		return m.restore(low)
	}
	switch op {
	case cfaNop:
	case cfaAARCH64NegateRA, cfaAARCH64NegateRAPC:
		m.row.RASigned = !m.row.RASigned
	case cfaGNUArgsSize:
		c.uleb()
	case cfaSetLoc:
		m.advanceTo(encoded(c, m.cie.ptrEnc, 0, 0))
	case cfaAdvanceLoc1:
		m.advance(uint64(c.u8()))
	case cfaAdvanceLoc2:
		m.advance(uint64(c.u16()))
	case cfaAdvanceLoc4:
		m.advance(uint64(c.u32()))
	case cfaRememberState:
		if len(m.stack) == maxStateDepth {
			return malformed("more than %d remembered states", maxStateDepth)
		}
		m.stack = append(m.stack, m.row)
	case cfaRestoreState:
		if len(m.stack) == 0 {
			return malformed("restore_state without remember_state")
		}
		m.row = m.stack[len(m.stack)-1]
		m.stack = m.stack[:len(m.stack)-1]
	default:
		if op >= cfaDefCFA && op <= cfaDefCFAExpression || op == cfaDefCFASF || op == cfaDefCFAOffsetSF {
			return m.defCFA(op, c)
		}
		return m.rule(op, c)
	}
	return nil
}

func (m *machine) defCFA(op uint8, c *cursor) error {
	switch op {
	case cfaDefCFA:
		m.row.CFAReg, m.row.CFAOffset, m.row.CFAExpr = reg(c.uleb()), int64(c.uleb()), nil
	case cfaDefCFASF:
		m.row.CFAReg, m.row.CFAOffset, m.row.CFAExpr = reg(c.uleb()), c.sleb()*m.cie.dataAlign, nil
	case cfaDefCFARegister:
		m.row.CFAReg, m.row.CFAExpr = reg(c.uleb()), nil
	case cfaDefCFAOffset:
		m.row.CFAOffset = int64(c.uleb())
	case cfaDefCFAOffsetSF:
		m.row.CFAOffset = c.sleb() * m.cie.dataAlign
	case cfaDefCFAExpression:
		m.row.CFAExpr = block(c)
	}
	return nil
}

func (m *machine) rule(op uint8, c *cursor) error {
	if op == cfaRestoreExtended {
		return m.restore(c.uleb())
	}
	r := c.uleb()
	switch op {
	case cfaOffsetExtended:
		m.set(r, Rule{Kind: Offset, N: int64(c.uleb()) * m.cie.dataAlign})
	case cfaOffsetExtendedSF:
		m.set(r, Rule{Kind: Offset, N: c.sleb() * m.cie.dataAlign})
	case cfaGNUNegativeOffset:
		m.set(r, Rule{Kind: Offset, N: -int64(c.uleb()) * m.cie.dataAlign})
	case cfaValOffset:
		m.set(r, Rule{Kind: ValOffset, N: int64(c.uleb()) * m.cie.dataAlign})
	case cfaValOffsetSF:
		m.set(r, Rule{Kind: ValOffset, N: c.sleb() * m.cie.dataAlign})
	case cfaUndefined:
		m.set(r, Rule{Kind: Undefined})
	case cfaSameValue:
		m.set(r, Rule{Kind: SameValue})
	case cfaRegister:
		m.set(r, Rule{Kind: Register, N: int64(reg(c.uleb()))})
	case cfaExpression:
		m.set(r, Rule{Kind: Expression, Expr: block(c)})
	case cfaValExpression:
		m.set(r, Rule{Kind: ValExpression, Expr: block(c)})
	default:
		return malformed("unknown instruction %#02x", op)
	}
	return nil
}

func (m *machine) set(r uint64, rule Rule) {
	if r < MaxReg {
		m.row.Regs[r] = rule
	}
}

// restore gives a register the rule that the CIE set up, which is not
// "undefined" but whatever held at the function's first instruction.
func (m *machine) restore(r uint64) error {
	if !m.inFDE {
		return malformed("restore in a CIE")
	}
	if r < MaxReg {
		m.row.Regs[r] = m.initial[r]
	}
	return nil
}

func (m *machine) advance(delta uint64) { m.advanceTo(m.loc + delta*m.cie.codeAlign) }

func (m *machine) advanceTo(loc uint64) {
	if loc > m.pc && m.inFDE {
		m.done = true
		return
	}
	m.loc = loc
}

func reg(v uint64) int { return int(min(v, 1<<16)) }

func block(c *cursor) []byte {
	n := c.uleb()
	if n > uint64(c.left()) {
		c.bad = true
		return []byte{}
	}
	return c.take(int(n))
}
