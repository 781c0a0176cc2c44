package stack

import (
	"errors"
	"fmt"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// NativeFrame is a native frame with what joining needs beside its text.
type NativeFrame struct {
	Frame
	Entry remote.Addr // of the physical function, 0 when unknown
	// Regs are the registers recovered at the physical frame; nil for inlined ones.
	Regs *remote.Regs
	// Executes is set where the caller's code shows that it has called the
	// interpreter, though this part of it has no name.
	Executes bool
}

// PHPFrame is a PHP frame with what joining needs beside its text.
type PHPFrame struct {
	Frame
	ExecuteData remote.Addr
	Handler     remote.Addr // of an internal function, 0 otherwise
	// Top is ZEND_CALL_TOP on a user frame: the execute_ex that runs it was
	// called for it, so its caller runs in another execute_ex.
	Top bool
	// LineAt reads the line and the opcode of an opline; ok only when the
	// opline lies inside the frame's op_array. nil for internal functions.
	LineAt func(opline remote.Addr) (line int, opcode string, ok bool)
	// JITLine reads them off the JIT code at pc, a return address if call is
	// set; sure is false when the code may belong to another line as well.
	JITLine func(pc remote.Addr, call bool) (line int, opcode string, sure, ok bool)
}

// Input is the two stacks of one thread at one instant, leaf first.
type Input struct {
	Native    []NativeFrame
	NativeEnd End
	NativeErr error
	PHP       []PHPFrame
	PHPErr    error
	// TopCall reports whether an execute_data that is not among PHP's frames
	// has ZEND_CALL_TOP; known is false when it can't be read. It may be nil.
	TopCall func(executeData remote.Addr) (top, known bool)
}

// Executor is the interpreter's function: all handlers of the hybrid VM are
// inlined into it (Zend/zend_vm_execute.skl).
const Executor = "execute_ex"

// Join merges the two stacks. PHP frames follow the native frame that runs
// them: an internal function its handler, user functions their execute_ex.
func Join(in Input) Stack {
	j := joiner{all: in.PHP, php: in.PHP, topCall: in.TopCall, trusted: trusted(&in)}
	for i := range in.Native {
		if n := &in.Native[i]; n.Function == Executor && !n.Inlined || n.Executes {
			j.executors++
		}
	}
	for i := range in.Native {
		var outer *NativeFrame
		if i+1 < len(in.Native) {
			outer = &in.Native[i+1]
		}
		j.native(&in.Native[i], outer)
	}
	out := Stack{End: in.NativeEnd}
	problems := []error{in.NativeErr, in.PHPErr}
	if n := len(j.php); n > 0 {
		if in.NativeEnd != Truncated {
			problems = append(problems, fmt.Errorf("%d PHP frames have no native frame that runs them", n))
		} else if p := &j.php[0]; n == len(in.PHP) && !p.Internal {
			// What keeps the current opline was not reached.
			problems = append(problems, fmt.Errorf("the line of %s may be one it has left since", p.QualifiedName()))
		}
		j.rest()
	}
	for _, p := range j.doubtful {
		problems = append(problems, fmt.Errorf("the line of %s may be one it has left since", p))
	}
	if j.idle > 0 && in.PHPErr == nil {
		problems = append(problems, fmt.Errorf("%d native frames of %s run no PHP frame that could be read", j.idle, Executor))
	}
	out.Frames = j.out
	if err := errors.Join(problems...); err != nil {
		out.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if in.PHPErr != nil {
		out.End = Truncated
	}
	return out
}

type joiner struct {
	all     []PHPFrame
	php     []PHPFrame // not yet placed
	out     []Frame
	idle    int // execute_ex frames for which no PHP frame was left
	topCall func(remote.Addr) (top, known bool)
	trusted bool // this build keeps execute_data in r14
	// executors are the execute_ex frames that are still to come, and magic is
	// the frame that was placed last if it was called by a trampoline.
	executors int
	magic     string
	placed    int
	called    bool         // the next PHP frame has called another
	jit       *NativeFrame // generated code met last
	// doubtful are the functions whose line was not kept anywhere.
	doubtful []string
}

// trusted reports whether the interpreter's frame register was found to hold
// one of PHP's frames at least once: not every compiler keeps it there.
func trusted(in *Input) bool {
	for i := range in.Native {
		n := &in.Native[i]
		if n.Function != Executor || n.Inlined || n.Regs == nil {
			continue
		}
		for k := range in.PHP {
			if holds(n.Regs, in.PHP[k].ExecuteData) {
				return true
			}
		}
	}
	return false
}

// runs returns which of the remaining PHP frames the interpreter's register
// names, -1 when none.
func (j *joiner) runs(n *NativeFrame) int {
	if !j.trusted || n.Regs == nil {
		return -1
	}
	// Only of PHP code that some other frame of PHP code was called from; an
	// internal function before it is placed with its caller.
	last := -1
	for k := range j.php {
		if !j.php[k].Internal {
			if holds(n.Regs, j.php[k].ExecuteData) {
				return last + 1
			}
			last = k
		}
	}
	return -1
}

// isTrampoline recognises the execute_ex that ran the trampoline of a missing
// method. PHP replaces that frame by __call's, but an extension that wraps
// execute_ex has called it for either: outside of __call stands one execute_ex
// more than there are frames that need one.
func (j *joiner) isTrampoline() bool {
	if j.magic == "" {
		return false
	}
	need := 0
	for i := range j.php {
		if j.php[i].Top && !j.php[i].Internal {
			need++
		}
	}
	return j.executors+1 > need
}

// runsNothing recognises an execute_ex that was called for a frame which is
// PHP's no more: it has handed its call on (the trampoline of a missing method,
// under an extension that wraps execute_ex), or has returned and destroys its
// variables.
func (j *joiner) runsNothing(n *NativeFrame) bool {
	if !j.trusted || n.Regs == nil || j.topCall == nil {
		return false
	}
	ed, ok := frameReg(n.Regs)
	if !ok {
		return false
	}
	// An inner execute_ex keeps its caller's register where no table says, so
	// it may still hold a frame that was placed further in.
	for k := range j.all {
		if j.all[k].ExecuteData == remote.Addr(ed) {
			return false
		}
	}
	top, known := j.topCall(remote.Addr(ed))
	return known && top
}

func (j *joiner) native(n, outer *NativeFrame) {
	f := n.Frame
	f.Kind = Native
	if f.Function == "" && (n.Executes || j.hidesExecutor(n, outer)) {
		f.Function = Executor
		j.out = append(j.out, f)
		j.executed(n)
		return
	}
	if len(j.php) > 0 && n.Entry != 0 && j.php[0].Handler == n.Entry && !f.Inlined {
		// A stripped binary has no name for a static handler, but the
		// function's entry in the engine's own table does.
		if f.Function == "" {
			f.Function = handlerName(&j.php[0].Frame)
			f.Offset = uint64(f.PC - n.Entry)
		}
		j.out = append(j.out, f)
		j.place()
		return
	}
	j.out = append(j.out, f)
	if f.Function == "" && f.Module == generated {
		j.jit = n
	}
	if f.Function == Executor && !f.Inlined {
		j.executed(n)
	}
}

// hidesExecutor recognises the part of execute_ex that gcc has moved to
// .text.unlikely, which a stripped binary has no name for. The interpreter's
// registers tell: they hold the next PHP frame and an opline of its function,
// and no longer do in the caller.
func (j *joiner) hidesExecutor(n, outer *NativeFrame) bool {
	if len(j.php) == 0 || j.php[0].Internal || n.Regs == nil || outer == nil || outer.Function == Executor {
		return false
	}
	if outer.Module == generated {
		return false // a helper of the JIT, whose code runs in execute_ex already
	}
	p := &j.php[0]
	if !holds(n.Regs, p.ExecuteData) || outer.Regs == nil || holds(outer.Regs, p.ExecuteData) || p.LineAt == nil {
		return false
	}
	opline, ok := oplineReg(n.Regs)
	if !ok {
		return false
	}
	_, _, ok = p.LineAt(remote.Addr(opline))
	return ok
}

// frameReg and oplineReg read the registers in which the interpreter keeps its
// frame and the current opline (Zend/zend_execute.c, ZEND_VM_FP_GLOBAL_REG and
// ZEND_VM_IP_GLOBAL_REG).
func frameReg(r *remote.Regs) (uint64, bool) {
	switch r.Arch {
	case remote.AMD64:
		return r.Get(remote.R14)
	case remote.ARM64:
		return r.Get(27)
	}
	return 0, false
}

func oplineReg(r *remote.Regs) (uint64, bool) {
	switch r.Arch {
	case remote.AMD64:
		return r.Get(remote.R15)
	case remote.ARM64:
		return r.Get(28)
	}
	return 0, false
}

// holds reports whether the interpreter's frame register is ed.
func holds(r *remote.Regs, ed remote.Addr) bool {
	v, ok := frameReg(r)
	return ok && remote.Addr(v) == ed
}

// executed places the PHP frames that one execute_ex runs: up to and
// including the user frame it was called for.
func (j *joiner) executed(n *NativeFrame) {
	j.executors--
	if j.isTrampoline() || j.runsNothing(n) {
		return
	}
	if len(j.php) == 0 {
		j.idle++
		return
	}
	// A frame that this execute_ex does not run yet, or no longer, has no
	// native frame: its call is being made or left.
	for k := j.runs(n); k > 0; k-- {
		j.place()
	}
	innermost := true
	// An internal function that was called, or whatever the last execute_ex
	// ran, left its caller's opline in memory.
	j.called = j.placed > 0
	for len(j.php) > 0 {
		p := &j.php[0]
		if p.Internal {
			j.called = true
			// Called straight from the VM, without a native frame of its
			// own that could be told apart (tail-called or inlined).
			j.place()
			continue
		}
		if innermost {
			j.exactLine(p, n)
			innermost = false
		}
		top := p.Top
		j.place()
		if top {
			return
		}
	}
}

// exactLine takes the current opline from the register that the interpreter
// keeps it in. execute_data->opline is only written where something may look
// at it, so it is stale in the middle of a line.
func (j *joiner) exactLine(p *PHPFrame, n *NativeFrame) {
	if n.Regs == nil || p.LineAt == nil || !holds(n.Regs, p.ExecuteData) {
		return
	}
	opline, ok := oplineReg(n.Regs)
	if !ok {
		return
	}
	line, opcode, ok := p.LineAt(remote.Addr(opline))
	if n.How == leftByJump || n.Module == generated {
		// JIT code stores the opline before what may look at it, such as an
		// internal function, and keeps it nowhere in between; r15 is used for
		// other things. What it last stored is the best there is.
		if j.called {
			return
		}
		if p.JITLine != nil && j.jit != nil {
			l, code, sure, found := p.JITLine(j.jit.PC, j.jit.How != "entry")
			if found {
				p.Line, p.Opcode = l, code
			}
			if found && sure {
				return
			}
		}
		if p.Line == 0 && ok {
			p.Line, p.Opcode = line, opcode
		}
		j.doubtful = append(j.doubtful, p.QualifiedName())
		return
	}
	if ok {
		p.Line, p.Opcode = line, opcode
	}
}

// generated is the unwinder's module for code that no file contains.
const generated = "[jit]"

// leftByJump is how the unwinder marks an execute_ex that JIT code runs in.
const leftByJump = "tail-call"

// place moves the next PHP frame to the output.
func (j *joiner) place() {
	f := j.php[0].Frame
	f.Kind = PHP
	j.magic = ""
	if f.Function == "__call" || f.Function == "__callStatic" {
		j.magic = f.Function
	}
	j.out = append(j.out, f)
	j.php = j.php[1:]
	j.placed++
}

func (j *joiner) rest() {
	for len(j.php) > 0 {
		j.place()
	}
}

// handlerName is the C name of an internal function's handler
// (ZEND_FUNCTION and ZEND_METHOD in Zend/zend_API.h).
func handlerName(f *Frame) string {
	if f.Function == "" {
		return ""
	}
	if f.Class != "" {
		return "zim_" + strings.ReplaceAll(f.Class, `\`, "_") + "_" + f.Function
	}
	return "zif_" + f.Function
}
