package zend

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// PHP 5 keeps its frames differently. An execute_data belongs to PHP code
// alone; the internal function that this code calls stands in it, as
// function_state.function. Only a call from C, such as usort's of its
// callback, has an execute_data without an op_array, which then names the
// function called. Names are C strings, and execute_data->opline is never
// stale: handlers find their opline through it (Zend/zend_vm_execute.skl).

// walk5 reads the frames of PHP 5.
func (th *Thread) walk5(r remote.Reader) Stack {
	var s Stack
	known := make(functions)
	inner := remote.Addr(0)
	s.Err = th.chain5(r, func(k link) (int, error) {
		err := th.frames5(r, k, known, inner, &s.Frames)
		inner = k.word(th.rt.Layout.EDOpArray)
		return len(s.Frames), err
	})
	if s.Err != nil {
		s.Frames = uncycle(s.Frames)
	}
	th.rt.nameIncludes(r, s.Frames)
	return s
}

// chain5 hands every execute_data to visit, innermost first.
func (th *Thread) chain5(r remote.Reader, visit func(link) (frames int, err error)) error {
	return th.chain5UpTo(r, maxLinks, visit)
}

func (th *Thread) chain5UpTo(r remote.Reader, maxLinks int, visit func(link) (frames int, err error)) error {
	rt, l := th.rt, th.rt.Layout
	cur, err := remote.Pointer(r, th.eg+remote.Addr(l.EGCurrent))
	if err != nil {
		return fmt.Errorf("current_execute_data: %w", err)
	}
	ed := make([]byte, l.EDSize)
	seen := make(map[remote.Addr]bool)
	for n, links := 0, 0; cur != 0; links++ {
		if n >= MaxFrames || links >= maxLinks {
			return ErrDepth
		}
		if seen[cur] {
			return ErrCycle
		}
		seen[cur] = true
		k, err := rt.link(r, cur, ed)
		if err != nil {
			return err
		}
		prev := k.word(l.EDPrev)
		if n, err = visit(k); err != nil {
			return err
		}
		cur = prev
	}
	return nil
}

// frames5 appends the frames that one execute_data stands for: the function
// that is called, unless it has an execute_data of its own, inner's, and the
// PHP code that runs.
func (th *Thread) frames5(r remote.Reader, k link, known functions, inner remote.Addr, out *[]Frame) error {
	l := th.rt.Layout
	read := func(at remote.Addr) (*function, error) {
		fn := known[at]
		if fn == nil {
			fn = th.rt.function5(r, at)
			known[at] = fn
		}
		return fn, fn.err
	}
	code := k.word(l.EDOpArray)
	if called := k.word(l.EDState); called != 0 && called != code {
		fn, err := read(called)
		if err != nil {
			return err
		}
		switch {
		case fn.name == "":
		case fn.internal(l):
			*out = append(*out, Frame{
				ExecuteData: k.at, Func: called, Function: fn.name, Class: fn.class, Internal: true, Handler: fn.handler,
				Via: fn.flags&accVia5 != 0,
			})
		case called != inner:
			// It has left already, and its variables' destructors run.
			*out = append(*out, Frame{ExecuteData: k.at, Func: called, Function: fn.name, Class: fn.class, File: fn.file, Via: true})
		}
	}
	if code == 0 {
		return nil
	}
	fn, err := read(code)
	if err != nil {
		return err
	}
	if fn.internal(l) {
		return fmt.Errorf("%w: op_array at %s has type %d", ErrLayout, code, fn.kind)
	}
	f := Frame{
		ExecuteData: k.at, Func: code, Function: fn.name, Class: fn.class, File: fn.file,
		Defined: int(fn.defined), Top: k.ed[l.EDNested] == 0, opline: k.word(l.EDOpline), opcodes: fn.opcodes, last: fn.last,
	}
	f.needsIncluder = fn.name == ""
	f.Line, f.Opcode = th.storedLine(r, &f, fn)
	*out = append(*out, f)
	return nil
}

// internal reports whether a function is implemented in C; PHP 5 has more
// than one kind of those (ZEND_OVERLOADED_FUNCTION).
func (fn *function) internal(l *Layout) bool { return fn.kind != l.TypeUser && fn.kind != l.TypeEval }

// function5 reads PHP 5's zend_function.
func (rt *Runtime) function5(r remote.Reader, at remote.Addr) *function {
	l := rt.Layout
	fn := &function{}
	b := make([]byte, l.FuncSize)
	n, err := r.ReadMemory(b, at)
	if at%8 != 0 || uint64(n) < l.InternalHandler+8 {
		fn.err = fmt.Errorf("%w: function at %s: %v", ErrWild, at, err)
		return fn
	}
	word := func(off uint64) remote.Addr { return remote.Addr(binary.LittleEndian.Uint64(b[off:])) }
	fn.kind = b[l.FuncType]
	fn.flags = binary.LittleEndian.Uint32(b[l.FuncFlags:])
	if fn.name, err = cstr(r, word(l.FuncName)); err != nil {
		fn.err = fmt.Errorf("function's name: %w", err)
		return fn
	}
	if scope := word(l.FuncScope); scope != 0 {
		p, err := remote.Pointer(r, scope+remote.Addr(l.ClassName))
		if err == nil {
			fn.class, err = cstr(r, p)
		}
		if err == nil && fn.class == "" {
			err = fmt.Errorf("%w: class without a name", ErrLayout)
		}
		if err != nil {
			fn.err = fmt.Errorf("class of %s: %w", short(fn.name), err)
			return fn
		}
	}
	switch fn.kind {
	case l.TypeUser, l.TypeEval:
		if uint64(n) < l.FuncSize {
			fn.err = fmt.Errorf("%w: function %s at %s: %v", ErrWild, short(fn.name), at, err)
			return fn
		}
		fn.opcodes = word(l.OpOpcodes)
		fn.last = binary.LittleEndian.Uint32(b[l.OpLast:])
		fn.lineEnd = binary.LittleEndian.Uint32(b[l.OpLineEnd:])
		fn.defined = l.closureLine(b, fn)
		fn.file, err = cstr(r, word(l.OpFilename))
		if err == nil && fn.file == "" {
			err = errors.New("no file name")
		}
		if err != nil || fn.opcodes%8 != 0 || fn.last > maxOplines || fn.lineEnd > maxLine {
			fn.err = fmt.Errorf("%w: function %q: %d oplines at %s, file: %v", ErrLayout, short(fn.name), fn.last, fn.opcodes, err)
		}
	case l.TypeInternal, overloaded, overloadedTemporary:
		fn.handler = word(l.InternalHandler)
	default:
		fn.err = fmt.Errorf("%w: function at %s has type %d", ErrLayout, at, fn.kind)
	}
	return fn
}

// ZEND_OVERLOADED_FUNCTION and ZEND_OVERLOADED_FUNCTION_TEMPORARY
// (Zend/zend_compile.h of PHP 5).
const overloaded, overloadedTemporary = 3, 5

// accVia5 is ZEND_ACC_CALL_VIA_HANDLER.
const accVia5 = 0x200000

// cstr reads a name; NULL is "".
func cstr(r remote.Reader, at remote.Addr) (string, error) {
	if at == 0 {
		return "", nil
	}
	s, err := remote.CString(r, at, maxString)
	if errors.Is(err, remote.ErrUnterminated) {
		return s + cutMark, nil
	}
	if err == nil {
		err = printable(s)
	}
	if err != nil {
		return "", err
	}
	return s, nil
}

// prefetch5 records what walk5 and LineAt will read: the top of the VM stack
// in one go, and the rest by walking.
func (th *Thread) prefetch5(r remote.Reader) {
	l := th.rt.Layout
	page, err := remote.Pointer(r, th.eg+remote.Addr(l.EGStack))
	if err == nil && page != 0 {
		if top, err := remote.Pointer(r, page+vmStackTop); err == nil {
			if used, ok := top.Distance(page); ok && used > 0 {
				n := min(used, maxPrefetchStack)
				remote.Prefetch(r, []remote.Region{{At: top - remote.Addr(n), Len: int(n)}})
			}
		}
	}
	s := th.walk5(r)
	total := 0
	seen := make(map[remote.Addr]bool)
	for i := range s.Frames {
		f := &s.Frames[i]
		if f.Internal || seen[f.opcodes] {
			continue
		}
		seen[f.opcodes] = true
		n := int(min(uint64(f.last)*l.OplineSize, maxPrefetchOplines))
		if total += n; total > maxPrefetchTotal {
			break
		}
		remote.Prefetch(r, []remote.Region{{At: f.opcodes, Len: n}})
	}
}
