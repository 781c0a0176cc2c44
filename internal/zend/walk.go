package zend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// MaxFrames bounds a walk, from the innermost frame on. All of them are
	// copied while the worker stands still, some 100 bytes each, which takes
	// about 0.1 ms for this many.
	MaxFrames = 2048
	// maxString bounds a name or path in bytes; what is longer ends in cutMark.
	maxString = 4096
	cutMark   = "…"
	// maxErrName is how much of a name an error quotes, in bytes.
	maxErrName = 100
	// maxName is the length from which on a name can't be one.
	maxName = 1 << 20
	// maxLine bounds a line number.
	maxLine = 1 << 28
	// maxOplines bounds an op_array; generated code reaches some 100,000.
	maxOplines = 1 << 24
	// exceptionOps is the length of EG(exception_op) (Zend/zend_globals.h).
	exceptionOps = 3
)

// Frame is one PHP frame.
type Frame struct {
	ExecuteData remote.Addr
	Func        remote.Addr
	Function    string // {main} for a script, include or eval for what they run
	Class       string
	File        string // "" for internal functions
	Line        int    // of the opline that execute_data has, 0 when unknown; see LineAt
	Opcode      string
	Defined     int // line on which a closure begins, 0 for anything with a name
	Internal    bool
	Top         bool        // ZEND_CALL_TOP on a user frame that an execute_ex runs
	Handler     remote.Addr // of an internal function
	// Via marks what only PHP 5 lists, and without a place of its own: the call
	// of a missing method, beside the __call that it ends up in, and a function
	// that has returned while its variables' destructors run.
	Via bool

	opline        remote.Addr
	opcodes       remote.Addr
	last          uint32
	needsIncluder bool
	closure       bool
}

// Stack is a thread's PHP frames, innermost first. Frames that were read are
// kept when Err says why the walk ended.
type Stack struct {
	Frames []Frame
	Err    error
}

// functions remembers what was read of each zend_function during one walk:
// recursion makes thousands of frames of a few functions.
type functions map[remote.Addr]*function

type function struct {
	kind    uint8
	flags   uint32
	name    string
	class   string
	file    string
	opcodes remote.Addr
	last    uint32
	lineEnd uint32
	defined uint32 // first line of a closure
	handler remote.Addr
	err     error
}

// Walk reads the PHP frames that the thread's globals lead to.
func (th *Thread) Walk(r remote.Reader) Stack {
	if th.rt.Layout.PHP5 {
		return th.walk5(r)
	}
	var s Stack
	known := make(functions)
	rt := th.rt
	s.Err = th.chain(r, func(k link) (int, error) {
		f, ok, err := th.frame(r, k, known)
		if err == nil && ok {
			s.Frames = append(s.Frames, f)
		}
		return len(s.Frames), err
	})
	if s.Err != nil {
		s.Frames = uncycle(s.Frames)
	}
	rt.nameIncludes(r, s.Frames)
	return s
}

// uncycle cuts the frames that a cycle made the walk see again.
func uncycle(frames []Frame) []Frame {
	seen := make(map[remote.Addr]bool, len(frames))
	for i := range frames {
		if seen[frames[i].ExecuteData] {
			return frames[:i]
		}
		seen[frames[i].ExecuteData] = true
	}
	return frames
}

// frame reads one execute_data. ok is false for one that backtraces leave out.
func (th *Thread) frame(r remote.Reader, k link, known functions) (f Frame, ok bool, err error) {
	rt, l := th.rt, th.rt.Layout
	f = Frame{ExecuteData: k.at, Func: k.word(l.EDFunc), opline: k.word(l.EDOpline)}
	fn := known[f.Func]
	if fn == nil {
		fn = rt.function(r, f.Func)
		known[f.Func] = fn
	}
	if fn.err != nil {
		return f, false, fn.err
	}
	f.Function, f.Class, f.File = fn.name, fn.class, fn.file
	f.Handler, f.opcodes, f.last, f.Defined = fn.handler, fn.opcodes, fn.last, int(fn.defined)
	if fn.kind == l.TypeInternal {
		// The bottom of a fiber's stack has a function without a name
		// (zend_fiber_function in Zend/zend_fibers.c).
		f.Internal = true
		return f, fn.name != "", nil
	}
	f.Top = binary.LittleEndian.Uint32(k.ed[l.EDCallInfo:])&l.CallTop != 0 && !k.suspended
	f.needsIncluder, f.closure = fn.name == "", fn.flags&l.AccClosure != 0
	if k.suspended {
		// It goes on behind its "yield from", which may be another line.
		at := f.opline - remote.Addr(l.OplineSize)
		if line, opcode, ok := rt.LineAt(r, &f, at); ok && opcode == "ZEND_YIELD_FROM" {
			f.opline, f.Line, f.Opcode = at, line, opcode
			return f, true, nil
		}
	}
	f.Line, f.Opcode = th.storedLine(r, &f, fn)
	return f, true, nil
}

// function reads a zend_function.
func (rt *Runtime) function(r remote.Reader, at remote.Addr) *function {
	l := rt.Layout
	fn := &function{}
	b := make([]byte, l.FuncSize)
	// Internal functions are shorter than op_arrays; only their part must be there.
	n, err := r.ReadMemory(b, at)
	if at%8 != 0 || uint64(n) < l.InternalHandler+8 {
		fn.err = fmt.Errorf("%w: function at %s: %v", ErrWild, at, err)
		return fn
	}
	word := func(off uint64) remote.Addr { return remote.Addr(binary.LittleEndian.Uint64(b[off:])) }
	fn.kind = b[l.FuncType]
	fn.flags = binary.LittleEndian.Uint32(b[l.FuncFlags:])
	if fn.name, err = rt.name(r, word(l.FuncName)); err != nil {
		fn.err = fmt.Errorf("function's name: %w", err)
		return fn
	}
	if scope := word(l.FuncScope); scope != 0 {
		if fn.class, err = rt.className(r, scope); err != nil {
			fn.err = fmt.Errorf("class of %s: %w", short(fn.name), err)
			return fn
		}
	}
	switch fn.kind {
	case l.TypeInternal:
		fn.handler = word(l.InternalHandler)
	case l.TypeUser, l.TypeEval:
		if uint64(n) < l.FuncSize {
			fn.err = fmt.Errorf("%w: function %s at %s: %v", ErrWild, short(fn.name), at, err)
			return fn
		}
		fn.opcodes = word(l.OpOpcodes)
		fn.last = binary.LittleEndian.Uint32(b[l.OpLast:])
		fn.lineEnd = binary.LittleEndian.Uint32(b[l.OpLineEnd:])
		fn.defined = l.closureLine(b, fn)
		fn.file, err = rt.str(r, word(l.OpFilename))
		switch {
		case errors.Is(err, errNoString):
			fn.err = fmt.Errorf("file of %s: %w", short(fn.name), err)
			return fn
		case err != nil:
		case strings.ContainsRune(fn.file, 0):
			err = errors.New("NUL in the file name")
		case fn.file == "" && fn.flags&l.AccVia == 0:
			err = errors.New("no file name")
		}
		if err != nil || fn.opcodes%8 != 0 || fn.last > maxOplines || fn.lineEnd > maxLine {
			fn.err = fmt.Errorf("%w: function %q: %d oplines at %s, file: %v", ErrLayout, short(fn.name), fn.last, fn.opcodes, err)
		}
	default:
		fn.err = fmt.Errorf("%w: function at %s has type %d", ErrLayout, at, fn.kind)
	}
	return fn
}

// closureLine is the first line of a closure, 0 for other functions. All
// closures have the same name before 8.4.
func (l *Layout) closureLine(op []byte, fn *function) uint32 {
	first := binary.LittleEndian.Uint32(op[l.OpLineStart:])
	if fn.flags&l.AccClosure == 0 || !strings.HasSuffix(fn.name, "{closure}") || first > fn.lineEnd {
		return 0
	}
	return first
}

func (rt *Runtime) className(r remote.Reader, ce remote.Addr) (string, error) {
	p, err := remote.Pointer(r, ce+remote.Addr(rt.Layout.ClassName))
	if err != nil {
		return "", err
	}
	s, err := rt.str(r, p)
	// The name of an anonymous class goes on behind a NUL with its place.
	s, _, _ = strings.Cut(s, "\x00")
	if err == nil {
		err = printable(s)
	}
	switch {
	case err != nil:
		return "", err
	case s == "":
		return "", fmt.Errorf("%w: class without a name", ErrLayout)
	}
	return s, nil
}

// name reads a function's name.
func (rt *Runtime) name(r remote.Reader, at remote.Addr) (string, error) {
	s, err := rt.str(r, at)
	if err == nil {
		err = printable(s)
	}
	if err != nil {
		return "", err
	}
	return s, nil
}

// printable refuses a name that can't be one: where a pointer or a length is
// wrong it would be a piece of the heap, with whatever that holds.
func printable(s string) error {
	if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' }) {
		return fmt.Errorf("%w: control bytes in a name", ErrLayout)
	}
	return nil
}

// short cuts a name for an error.
func short(s string) string {
	if len(s) > maxErrName {
		return strings.ToValidUTF8(s[:maxErrName], "") + cutMark
	}
	return s
}

// maxStringInfo is beyond the type_info of any zend_string (Zend/zend_types.h):
// the type, flags up to bit 9 (12 before 7.3), and nothing above. The allocator
// links what was freed through the same eight bytes, and the upper half of a
// pointer into PHP's heap is larger.
const maxStringInfo = 0x2000

// errNoString says that a name has been freed, or never was one.
var errNoString = fmt.Errorf("%w: a name that is no string", ErrLayout)

// str reads a zend_string; NULL is "".
func (rt *Runtime) str(r remote.Reader, at remote.Addr) (string, error) {
	if at == 0 {
		return "", nil
	}
	l := rt.Layout
	info, err := remote.Uint32(r, at+countedType)
	if err != nil {
		return "", err
	}
	if info&countedMask != zString || info >= maxStringInfo {
		return "", errNoString
	}
	n, err := remote.Uint64(r, at+remote.Addr(l.StringLen))
	if err != nil {
		return "", err
	}
	if n > maxName {
		return "", fmt.Errorf("%w: a name of %d bytes", ErrLayout, n)
	}
	b := make([]byte, min(n, maxString))
	if err := remote.ReadFull(r, b, at+remote.Addr(l.StringVal)); err != nil {
		return "", err
	}
	if n > maxString {
		return string(b) + cutMark, nil
	}
	return string(b), nil
}

// storedLine is the line of the opline that execute_data points at: exact for
// frames that have called another, possibly stale for the innermost one.
func (th *Thread) storedLine(r remote.Reader, f *Frame, fn *function) (int, string) {
	l := th.rt.Layout
	at := f.opline
	// While an exception unwinds a function, its opline is one of
	// EG(exception_op), and the one that threw is kept aside.
	exceptionOp := th.exceptionOp()
	off, ok := at.Distance(th.eg + remote.Addr(exceptionOp))
	if ok && off < exceptionOps*l.OplineSize {
		var err error
		if at, err = remote.Pointer(r, th.eg+remote.Addr(exceptionOp-l.EGExceptionOp+l.EGBeforeException)); err != nil {
			return 0, ""
		}
		if at == 0 {
			return int(fn.lineEnd), ""
		}
	}
	line, opcode, _ := th.rt.LineAt(r, f, at)
	return line, opcode
}

// TopCall reads ZEND_CALL_TOP of an execute_data that Walk may not have met.
func (rt *Runtime) TopCall(r remote.Reader, ed remote.Addr) (top, known bool) {
	l := rt.Layout
	if l.PHP5 {
		nested, err := remote.Uint8(r, ed+remote.Addr(l.EDNested))
		return nested == 0, err == nil
	}
	info, err := remote.Uint32(r, ed+remote.Addr(l.EDCallInfo))
	return info&l.CallTop != 0, err == nil
}

// LineAt reads the line and the opcode of an opline; ok only when it is one
// of the frame's own function.
func (rt *Runtime) LineAt(r remote.Reader, f *Frame, opline remote.Addr) (line int, opcode string, ok bool) {
	l := rt.Layout
	off, ok := opline.Distance(f.opcodes)
	if !ok || f.opcodes == 0 || off%l.OplineSize != 0 || off/l.OplineSize >= uint64(f.last) {
		return 0, "", false
	}
	n, err := remote.Uint32(r, opline+remote.Addr(l.OplineLine))
	if err != nil || n > maxLine {
		return 0, "", false
	}
	code, err := remote.Uint8(r, opline+remote.Addr(l.OplineCode))
	if err != nil {
		return 0, "", false
	}
	return int(n), l.Opcode(code), true
}

// includeKinds are the values of ZEND_INCLUDE_OR_EVAL's extended_value
// (Zend/zend_compile.h).
var includeKinds = map[uint32]string{1: "eval", 2: "include", 4: "include_once", 8: "require", 16: "require_once"}

// nameIncludes names the frames of code outside any function by what started
// them: the caller's opline says include or eval; nobody called {main}.
func (rt *Runtime) nameIncludes(r remote.Reader, frames []Frame) {
	for i := range frames {
		f := &frames[i]
		if !f.needsIncluder {
			continue
		}
		f.Function = "{main}"
		if i+1 == len(frames) {
			continue
		}
		caller := &frames[i+1]
		if caller.Opcode != "ZEND_INCLUDE_OR_EVAL" {
			continue
		}
		kind, err := remote.Uint32(r, caller.opline+remote.Addr(rt.Layout.OplineExtended))
		if name := includeKinds[kind]; err == nil && name != "" {
			f.Function = name
		} else {
			f.Function = "include"
		}
	}
}
