// Package symbolize turns a thread's registers and a copy of its stack into
// named frames, as gdb's backtrace does: it unwinds by call-frame information
// and names functions from DWARF, .symtab or .dynsym.
//
// Contract: frames that were found are kept together with the error that
// ended the walk. A frame that nothing names stays unnamed: a wrong name is
// worse than none. Every frame says how it was found.
//
// Hazard: registers and stack belong to another process, files to whoever
// wrote them. Nothing in them makes a walk endless or the package panic.
//
// Non-goal: it doesn't stop processes and knows nothing of PHP.
package symbolize

import (
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// How says by what means a frame was found.
type How string

// The ways to find a frame. The innermost frame is the entry into the walk:
// its program counter comes straight from the registers.
const (
	HowEntry        How = "entry"
	HowCFI          How = "cfi"
	HowFramePointer How = "frame-pointer"
	HowTailCall     How = "tail-call"
	HowInline       How = "inline"
	// HowScan: below this frame is code that nothing describes, and the return
	// address was searched for on the stack.
	HowScan How = "scan"
)

// End says how a walk ended.
type End string

// Root: the thread's first function was reached. Truncated: the walk gave up
// before, and Err says why.
const (
	Root      End = "root"
	Truncated End = "truncated"
)

// PhysicalFrame is one activation on the machine's stack.
type PhysicalFrame struct {
	PC remote.Addr
	// Exact is set where PC is the instruction itself: in the innermost frame
	// and in one that a signal interrupted. Elsewhere PC is a return address,
	// which may already belong to the next line or, behind a call that does
	// not return, to the next function; it is looked up at PC-1.
	Exact bool
	CFA   remote.Addr // 0 when the frame's own caller was not found
	Regs  remote.Regs // as they were in this frame
	How   How
	Entry remote.Addr // of the function, from call-frame information; 0 when unknown
	// Unplaced is set where the function is known, but not where in it: it has
	// jumped away, and PC is only some address in it.
	Unplaced bool
}

// Lookup is the address by which the frame's function and line are found.
func (f *PhysicalFrame) Lookup() remote.Addr {
	if f.Exact || f.PC == 0 {
		return f.PC
	}
	return f.PC - 1
}

// Walk is an unwound stack, innermost frame first.
type Walk struct {
	Frames []PhysicalFrame
	End    End
	Err    error
}

// Frame is one function on the stack, physical or inlined.
type Frame struct {
	PC         remote.Addr
	How        How
	Function   string // canonical name, "" when unknown
	Raw        string // the name as it stands in DWARF or the symbol table
	Module     string // base name of the ELF file, "" for anonymous memory
	ModulePath string
	Offset     uint64 // from the function's start; from the module's load address when unknown
	File       string // "" when unknown
	Line       int    // 0 when unknown
	Inlined    bool
	Entry      remote.Addr  // of the physical function, 0 when unknown
	Regs       *remote.Regs // of the physical frame; nil for inlined ones
}

// Trace is a symbolized stack, innermost frame first.
type Trace struct {
	Frames []Frame
	End    End
	Err    error
}
