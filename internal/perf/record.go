package perf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Sample is one thread at one instant. Stack, List and what List points to are
// valid until the function that it was handed to returns.
type Sample struct {
	PID, TID int
	At       time.Duration // on CLOCK_MONOTONIC
	Regs     remote.Regs   // without the thread pointer, which the kernel does not copy
	Stack    []byte        // from the stack pointer on
	List     List
	// Point is the breakpoint's index, -1 where it was the clock.
	Point int
}

// List is what the kernel copied as Follow describes.
type List struct {
	First, Extra uint64
	Nodes        []Node
	// Short says that not all nodes were copied: they are too many, or one
	// can't be read.
	Short error
}

// Node is one node of a List. Body is its descriptor, nil when that is the one
// of the node before.
type Node struct {
	At, Desc, A, B uint64
	Flags          uint32
	Body           []byte
}

// The reasons why a list is short.
var (
	ErrLong  = errors.New("the list is longer than what is copied of it")
	ErrFault = errors.New("the list leads to memory that can't be read")
	// ErrTorn: another thread's program ran in the middle of this one's.
	ErrTorn = errors.New("the list was overwritten while it was copied")
	// ErrNoHead: SetHead has not been told of the thread.
	ErrNoHead = errors.New("nothing tells where the thread's list begins")
)

// ErrMalformed says that a record is not what the kernel writes.
var ErrMalformed = errors.New("malformed perf record")

// Kinds of records (enum perf_event_type) and of ABIs (enum perf_sample_regs_abi).
const (
	recordLost   = 2
	recordSample = 9
	headerBytes  = 8
	abi64        = 2
)

// userRegs are the registers that are asked for, in the kernel's order
// (arch/x86/include/uapi/asm/perf_regs.h), as DWARF numbers; -1 is not kept.
var userRegs = [...]int{
	remote.RAX, remote.RBX, remote.RCX, remote.RDX, remote.RSI, remote.RDI, remote.RBP, remote.RSP, remote.RIP, -1, // flags
	remote.R8, remote.R9, remote.R10, remote.R11, remote.R12, remote.R13, remote.R14, remote.R15,
}

const userRegsMask = 0x3ff | 0xff<<16

// cursor reads a record. Its error sticks.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// decode reads a sample's body: PERF_SAMPLE_TID, TIME, RAW, REGS_USER
// and STACK_USER, in that order. descSize is the Follow's, 0 without.
func (s *Sample) decode(body []byte, descSize uint64) error {
	c := cursor{b: body}
	s.PID, s.TID = int(int32(c.u32())), int(int32(c.u32()))
	s.At = time.Duration(c.u64())
	s.Regs = remote.Regs{Arch: remote.AMD64, OrigSyscall: -1}
	s.Stack = nil
	s.List = List{Nodes: s.List.Nodes[:0]}
	list := c.take(uint64(c.u32()))
	abi := c.u64()
	if abi != 0 {
		for _, r := range userRegs {
			if v := c.u64(); r >= 0 && !c.bad {
				s.Regs.Set(r, v)
			}
		}
	}
	if n := c.u64(); n > 0 {
		stack := c.take(n)
		used := c.u64()
		if used > n {
			c.bad = true
		}
		if !c.bad {
			s.Stack = stack[:used]
		}
	}
	switch {
	case c.bad:
		return fmt.Errorf("%w: a sample of %d bytes", ErrMalformed, len(body))
	case abi != abi64:
		return fmt.Errorf("%w: registers of ABI %d", ErrMalformed, abi)
	}
	return s.list(list, descSize)
}

// list reads what a program has handed over.
func (s *Sample) list(b []byte, descSize uint64) error {
	head := cursor{b: b}
	l := &s.List
	kind := head.u64()
	if s.Point = int(kind & kindMask); s.Point >= clockKind {
		s.Point = -1
	}
	l.First, l.Extra = head.u64(), head.u64()
	status, size := head.u64(), head.u64()
	if head.bad || size < headBytes || size > uint64(len(b)) {
		return fmt.Errorf("%w: a list of %d bytes", ErrMalformed, len(b))
	}
	switch status {
	case statusNone:
		l.Short = ErrNoHead
	case statusFault:
		l.Short = ErrFault
	case statusLong:
		l.Short = ErrLong
	}
	c := cursor{b: b[headBytes:size]}
	for len(c.b) > 0 && len(l.Nodes) < MaxNodes {
		n := Node{At: c.u64(), A: c.u64(), Desc: c.u64()}
		flags := c.u64()
		n.B, n.Flags = c.u64(), uint32(flags)
		if flags&withDesc != 0 {
			body := c.take(descRoom(descSize))
			if body != nil {
				n.Body = body[:descSize]
			}
		}
		if c.bad {
			return fmt.Errorf("%w: a list of %d bytes ends in a node", ErrMalformed, len(b))
		}
		if flags>>tidShift != kind>>tidShift {
			l.Short = ErrTorn
		}
		l.Nodes = append(l.Nodes, n)
	}
	return nil
}
