package cfi

import (
	"errors"
	"fmt"
)

// Machine gives an expression the state it is evaluated in.
type Machine interface {
	// Register returns a register's value in the frame being unwound.
	Register(n int) (uint64, bool)
	// ReadMemory reads an unsigned little-endian integer of size bytes (1, 2, 4 or 8).
	ReadUint(at uint64, size int) (uint64, error)
}

// ErrExpression says that an expression could not be evaluated.
var ErrExpression = errors.New("call-frame expression")

const (
	maxExprSteps = 1000
	maxExprStack = 64
)

// DWARF operations that occur in call-frame information (DWARF 5, table 7.9).
const (
	opAddr       = 0x03
	opDeref      = 0x06
	opConst1u    = 0x08
	opConst1s    = 0x09
	opConst2u    = 0x0a
	opConst2s    = 0x0b
	opConst4u    = 0x0c
	opConst4s    = 0x0d
	opConst8u    = 0x0e
	opConst8s    = 0x0f
	opConstu     = 0x10
	opConsts     = 0x11
	opDup        = 0x12
	opDrop       = 0x13
	opOver       = 0x14
	opPick       = 0x15
	opSwap       = 0x16
	opRot        = 0x17
	opAbs        = 0x19
	opAnd        = 0x1a
	opDiv        = 0x1b
	opMinus      = 0x1c
	opMod        = 0x1d
	opMul        = 0x1e
	opNeg        = 0x1f
	opNot        = 0x20
	opOr         = 0x21
	opPlus       = 0x22
	opPlusUconst = 0x23
	opShl        = 0x24
	opShr        = 0x25
	opShra       = 0x26
	opXor        = 0x27
	opBra        = 0x28
	opEq         = 0x29
	opGe         = 0x2a
	opGt         = 0x2b
	opLe         = 0x2c
	opLt         = 0x2d
	opNe         = 0x2e
	opSkip       = 0x2f
	opLit0       = 0x30
	opLit31      = 0x4f
	opBreg0      = 0x70
	opBreg31     = 0x8f
	opBregx      = 0x92
	opDerefSize  = 0x94
	opNop        = 0x96
)

// Eval runs an expression on a stack that holds initial (the CFA, for
// register rules) and returns the top.
func Eval(expr []byte, m Machine, initial ...uint64) (uint64, error) {
	e := evaluation{c: cursor{b: expr}, m: m, stack: append(make([]uint64, 0, 8), initial...)}
	for steps := 0; e.c.left() > 0; steps++ {
		if steps == maxExprSteps {
			return 0, fmt.Errorf("%w: more than %d steps", ErrExpression, maxExprSteps)
		}
		op := e.c.u8()
		if err := e.step(op); err != nil {
			return 0, err
		}
		if e.c.bad {
			return 0, fmt.Errorf("%w: operation %#02x is cut off", ErrExpression, op)
		}
		if e.under {
			return 0, fmt.Errorf("%w: operation %#02x finds too few values", ErrExpression, op)
		}
		if len(e.stack) > maxExprStack {
			return 0, fmt.Errorf("%w: more than %d values", ErrExpression, maxExprStack)
		}
	}
	if len(e.stack) == 0 {
		return 0, fmt.Errorf("%w: no result", ErrExpression)
	}
	return e.stack[len(e.stack)-1], nil
}

type evaluation struct {
	c     cursor
	m     Machine
	stack []uint64
	under bool
}

func (e *evaluation) push(v uint64) { e.stack = append(e.stack, v) }

func (e *evaluation) pop() uint64 {
	if len(e.stack) == 0 {
		e.under = true
		return 0
	}
	v := e.stack[len(e.stack)-1]
	e.stack = e.stack[:len(e.stack)-1]
	return v
}

// pick copies the value n below the top.
func (e *evaluation) pick(n int) {
	if n >= len(e.stack) {
		e.under = true
		return
	}
	e.push(e.stack[len(e.stack)-1-n])
}

func (e *evaluation) step(op uint8) error {
	switch {
	case op >= opLit0 && op <= opLit31:
		e.push(uint64(op - opLit0))
		return nil
	case op >= opBreg0 && op <= opBreg31:
		return e.breg(int(op-opBreg0), e.c.sleb())
	case op >= opAbs && op <= opXor && op != opPlusUconst, op >= opEq && op <= opNe:
		return e.arithmetic(op)
	}
	switch op {
	case opNop:
	case opAddr, opConst8u, opConst8s:
		e.push(e.c.u64())
	case opConst1u:
		e.push(uint64(e.c.u8()))
	case opConst1s:
		e.push(uint64(int64(int8(e.c.u8()))))
	case opConst2u:
		e.push(uint64(e.c.u16()))
	case opConst2s:
		e.push(uint64(int64(int16(e.c.u16()))))
	case opConst4u:
		e.push(uint64(e.c.u32()))
	case opConst4s:
		e.push(uint64(int64(int32(e.c.u32()))))
	case opConstu:
		e.push(e.c.uleb())
	case opConsts:
		e.push(uint64(e.c.sleb()))
	case opPlusUconst:
		e.push(e.pop() + e.c.uleb())
	case opDup:
		e.pick(0)
	case opOver:
		e.pick(1)
	case opPick:
		e.pick(int(e.c.u8()))
	case opDrop:
		e.pop()
	case opSwap:
		a, b := e.pop(), e.pop()
		e.push(a)
		e.push(b)
	case opRot:
		a, b, c := e.pop(), e.pop(), e.pop()
		e.push(a)
		e.push(c)
		e.push(b)
	case opBregx:
		return e.breg(reg(e.c.uleb()), e.c.sleb())
	case opDeref:
		return e.deref(8)
	case opDerefSize:
		return e.deref(int(e.c.u8()))
	case opSkip:
		e.branch(true)
	case opBra:
		e.branch(e.pop() != 0)
	default:
		return fmt.Errorf("%w: unknown operation %#02x", ErrExpression, op)
	}
	return nil
}

func (e *evaluation) breg(n int, off int64) error {
	v, ok := e.m.Register(n)
	if !ok {
		return fmt.Errorf("%w: register %d is unknown", ErrExpression, n)
	}
	e.push(v + uint64(off))
	return nil
}

func (e *evaluation) deref(size int) error {
	if size != 1 && size != 2 && size != 4 && size != 8 {
		return fmt.Errorf("%w: read of %d bytes", ErrExpression, size)
	}
	at := e.pop()
	if e.under {
		return nil
	}
	v, err := e.m.ReadUint(at, size)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrExpression, err)
	}
	e.push(v)
	return nil
}

func (e *evaluation) branch(taken bool) {
	d := int(int16(e.c.u16()))
	if !taken {
		return
	}
	if to := e.c.off + d; to >= 0 && to <= len(e.c.b) {
		e.c.off = to
	} else {
		e.c.bad = true
	}
}

func (e *evaluation) arithmetic(op uint8) error {
	if op == opAbs || op == opNeg || op == opNot {
		v := e.pop()
		switch {
		case op == opNot:
			v = ^v
		case op == opNeg, int64(v) < 0:
			v = -v
		}
		e.push(v)
		return nil
	}
	b, a := e.pop(), e.pop()
	truth := func(v bool) {
		if v {
			e.push(1)
		} else {
			e.push(0)
		}
	}
	switch op {
	case opAnd:
		e.push(a & b)
	case opOr:
		e.push(a | b)
	case opXor:
		e.push(a ^ b)
	case opPlus:
		e.push(a + b)
	case opMinus:
		e.push(a - b)
	case opMul:
		e.push(a * b)
	case opShl:
		e.push(a << b)
	case opShr:
		e.push(a >> b)
	case opShra:
		e.push(uint64(int64(a) >> b))
	case opDiv, opMod:
		if b == 0 {
			return fmt.Errorf("%w: division by zero", ErrExpression)
		}
		if op == opMod {
			e.push(a % b)
		} else {
			e.push(uint64(int64(a) / int64(b)))
		}
	case opEq:
		truth(a == b)
	case opNe:
		truth(a != b)
	case opLt:
		truth(int64(a) < int64(b))
	case opLe:
		truth(int64(a) <= int64(b))
	case opGt:
		truth(int64(a) > int64(b))
	case opGe:
		truth(int64(a) >= int64(b))
	}
	return nil
}
