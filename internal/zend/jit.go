package zend

import (
	"golang.org/x/arch/x86/x86asm"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// JIT code keeps the current opline nowhere: it is stored only before
// something may look at it. But the code itself is full of traces of the
// opline that each part was made from: before a call that may throw, and in the
// slow paths that guards branch to, it stores the opline's address, a constant.
// The nearest such traces before and behind the program counter enclose the
// opline that runs. When all oplines between them are of one line, the line is
// certain.

const (
	jitBack   = 1024 // bytes of code that are looked at before the program counter
	jitAhead  = 512  // and behind it
	jitBranch = 24   // instructions that are followed into a slow path
)

// jitCode is the code around a place.
type jitCode struct {
	r    remote.Reader
	ops  remote.Addr
	size uint64
	last uint32
}

// JITLine finds the line of the opline whose JIT code contains pc. call is set
// when pc is a return address. sure is false when more than one line is possible.
func (rt *Runtime) JITLine(r remote.Reader, f *Frame, pc remote.Addr, call bool) (line int, opcode string, sure, ok bool) {
	if f.opcodes == 0 || f.last == 0 || f.Internal || !rt.readsCode() {
		return 0, "", false, false
	}
	c := jitCode{r: r, ops: f.opcodes, size: rt.Layout.OplineSize, last: f.last}
	low, okLow := c.before(pc, call)
	high, okHigh := c.behind(pc)
	nearest := low
	switch {
	case !okLow && !okHigh:
		return 0, "", false, false
	case !okLow, okHigh && high.at-pc < pc-low.at:
		nearest = high
	}
	line, opcode, ok = rt.LineAt(r, f, c.opline(nearest.num))
	if !ok || !okLow {
		return line, opcode, false, ok
	}
	if !okHigh {
		// The straight code ends, and the basic block with it.
		high.num = low.num
	}
	if high.num < low.num {
		return line, opcode, false, true // out of order: a loop's end, or a slow path
	}
	for i := low.num; i <= high.num; i++ {
		n, name, ok := rt.LineAt(r, f, c.opline(i))
		if !ok || n != line && name != "ZEND_JMP" {
			return line, opcode, false, true
		}
	}
	return line, opcode, true, true
}

func (c *jitCode) opline(n uint32) remote.Addr { return c.ops + remote.Addr(uint64(n)*c.size) }

// trace is an opline's number, as the code that ends at an address names it.
type trace struct {
	at  remote.Addr
	num uint32
}

// before finds the last trace before pc.
func (c *jitCode) before(pc remote.Addr, call bool) (trace, bool) {
	if pc < jitBack {
		return trace{}, false
	}
	b := make([]byte, jitBack)
	n, _ := c.r.ReadMemory(b, pc-jitBack)
	from := pc - jitBack
	if n < len(b) {
		// The buffer begins here.
		for skip := remote.Addr(0); ; skip += 256 {
			if skip >= jitBack {
				return trace{}, false
			}
			if err := remote.ReadFull(c.r, b[skip:], from+skip); err == nil {
				from, b = from+skip, b[skip:]
				break
			}
		}
	}
	// Where an instruction begins is unknown; decoding falls into step within
	// a few. The first start from which pc is the beginning of one counts.
	for skip := 0; skip < min(16, len(b)); skip++ {
		var last trace
		found := false
		off := skip
		for off < len(b) {
			in, err := x86asm.Decode(b[off:], 64)
			if err != nil || in.Len == 0 {
				off++
				found = false // out of step
				continue
			}
			next := from + remote.Addr(off+in.Len)
			if num, ok := c.named(in, next); ok && (next < pc || call) {
				last, found = trace{next, num}, true
			} else if num, ok := c.slowPath(in, next); ok && next <= pc {
				last, found = trace{next, num}, true
			}
			off += in.Len
		}
		if off == len(b) && found {
			return last, true
		}
	}
	return trace{}, false
}

// behind finds the first trace in the straight code from pc on.
func (c *jitCode) behind(pc remote.Addr) (trace, bool) {
	b := make([]byte, jitAhead)
	n, _ := c.r.ReadMemory(b, pc)
	b = b[:n]
	for off := 0; off < len(b); {
		in, err := x86asm.Decode(b[off:], 64)
		if err != nil || in.Len == 0 {
			return trace{}, false
		}
		next := pc + remote.Addr(off+in.Len)
		if num, ok := c.named(in, next); ok {
			return trace{next, num}, true
		}
		if num, ok := c.slowPath(in, next); ok {
			return trace{next, num}, true
		}
		if in.Op == x86asm.JMP || in.Op == x86asm.RET {
			return trace{}, false
		}
		off += in.Len
	}
	return trace{}, false
}

// named returns the opline that an instruction names as a constant.
func (c *jitCode) named(in x86asm.Inst, next remote.Addr) (uint32, bool) {
	for _, a := range in.Args {
		v := remote.Addr(0)
		switch a := a.(type) {
		case x86asm.Imm:
			v = remote.Addr(a)
		case x86asm.Mem:
			if in.Op != x86asm.LEA || a.Base != x86asm.RIP {
				continue
			}
			v = next + remote.Addr(a.Disp)
		default:
			continue
		}
		off, ok := v.Distance(c.ops)
		if ok && v >= c.ops && off%c.size == 0 && off/c.size < uint64(c.last) {
			return uint32(off / c.size), true
		}
	}
	return 0, false
}

// slowPath follows a conditional jump and returns the opline that its target
// stores first.
func (c *jitCode) slowPath(in x86asm.Inst, next remote.Addr) (uint32, bool) {
	rel, ok := in.Args[0].(x86asm.Rel)
	if !ok || in.Op == x86asm.JMP || in.Op == x86asm.CALL {
		return 0, false
	}
	at := next + remote.Addr(int64(rel))
	b := make([]byte, 16*jitBranch)
	n, _ := c.r.ReadMemory(b, at)
	b = b[:n]
	for range jitBranch {
		if len(b) == 0 {
			return 0, false
		}
		in, err := x86asm.Decode(b, 64)
		if err != nil || in.Len == 0 {
			return 0, false
		}
		at += remote.Addr(in.Len)
		if num, ok := c.named(in, at); ok {
			return num, true
		}
		if in.Op == x86asm.JMP || in.Op == x86asm.RET || in.Op == x86asm.CALL {
			return 0, false
		}
		b = b[in.Len:]
	}
	return 0, false
}
