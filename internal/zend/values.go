package zend

import (
	"encoding/binary"
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const (
	// maxFrameValues bounds the variables that are read of one frame, and
	// maxValues those of a whole stack, innermost first: following a thousand
	// pointers takes the stopped worker about a millisecond. What is left out
	// is said.
	maxFrameValues = 256
	maxValues      = 1024
	// maxVariable bounds a variable's name in bytes.
	maxVariable = 256
	// look is how much of a string is read, in bytes: more than is shown, to
	// recognise secrets that reach beyond.
	look = 256
	// maxFollow bounds the way from a variable to its value: a reference, and
	// an indirection before it.
	maxFollow = 2
	// maxAttributes bounds the attributes of one function.
	maxAttributes = 256
	// maxLength is from where on a string's length can't be one.
	maxLength = 1 << 46
)

// Since 7.0: struct _zval_struct { zend_value value; u1; u2; }, and every
// counted struct begins with zend_refcounted_h, which repeats the type
// (Zend/zend_types.h).
const (
	zvalSize, zvalType = 16, 8
	countedType        = 4
	countedMask        = 0x0f // GC_TYPE_MASK; flags share the byte since 7.3
	resourceHandle     = 8    // an int, since 8.2 a zend_long
	packedFlag         = 1 << 2
	attrLowerName      = 8       // zend_attribute.lcname, since 8.0
	callHasSymbols     = 1 << 20 // ZEND_CALL_HAS_SYMBOL_TABLE in u1.type_info, since 7.1
	sensitive          = "sensitiveparameter"
	zUndef, zNull      = 0, 1
	zFalse, zTrue      = 2, 3
	zLong, zDouble     = 4, 5
	zString, zArray    = 6, 7
	zObject, zResource = 8, 9
	zReference         = 10
	arrayHeader        = 56 // sizeof zend_array
)

// ValueKind says what a value is to its frame.
type ValueKind string

// The kinds.
const (
	Argument ValueKind = "argument"
	Variable ValueKind = "variable"
	This     ValueKind = "this"
)

// The types, as PHP names them, and what stands where there is no value.
const (
	TypeUndef    = "undef" // declared in the code, but not yet set
	TypeNull     = "null"
	TypeBool     = "bool"
	TypeInt      = "int"
	TypeFloat    = "float"
	TypeString   = "string"
	TypeArray    = "array"
	TypeObject   = "object"
	TypeResource = "resource"
	TypeConstant = "constant" // an expression that is evaluated at its first use
	TypeUnknown  = "unknown"  // memory that is no value, or could not be read
)

// Want says of which frames which variables are read.
type Want struct {
	All bool
	// Of names the variables wanted of a frame, without $; nil for none. It
	// knows the frame's function and file; its line may not be the exact one.
	Of func(f *Frame) []string
}

func (w Want) of(f *Frame) (names []string, all bool) {
	if w.All || w.Of == nil {
		return nil, w.All
	}
	return w.Of(f), false
}

// raw is a variable as it was read, before anything of it is shown.
type raw struct {
	name   string // "$row", "#3" for an argument without a name
	kind   ValueKind
	secret bool // its parameter is marked #[SensitiveParameter]
	typ    string
	bits   uint64 // an int, a float's bits, 1 for true, the handle of an object or resource
	size   uint64 // a string's bytes, an array's elements
	text   string // the first bytes of a string
	class  string
	at     remote.Addr // of a string
}

// Values reads the variables of frames that Walk has returned: nil for a frame
// of which none are wanted. The process must not have run since.
func (th *Thread) Values(r remote.Reader, frames []Frame, w Want) ([][]Value, error) {
	l := th.rt.Layout
	if err := l.Values.err(); err != nil {
		return nil, err
	}
	v := th.frameReader(r, true)
	raws := make([][]raw, len(frames))
	read := 0
	for i := range frames {
		if names, all := w.of(&frames[i]); all || len(names) > 0 {
			raws[i] = readFrame(v, &frames[i], names, &read)
		}
	}
	return show(raws), nil
}

// frameReader reads the variables of one stack. PHP 5 has its own.
type frameReader interface {
	// places lists a frame's variables, and counts those that have no place.
	// ok is false when the frame can't be read.
	places(f *Frame) (list []place, left int, ok bool)
	// value reads the value in a place.
	value(p *place, w *raw)
	// forget drops what is kept of a function.
	forget(fn remote.Addr)
}

// readFrame reads a frame's variables, all of them when names is empty, as long
// as the stack's number of values is within bounds.
func readFrame(v frameReader, f *Frame, names []string, read *int) []raw {
	out := []raw{}
	list, left, ok := v.places(f)
	if !ok {
		return append(out, remark("the frame can't be read"))
	}
	for i := range list {
		p := &list[i]
		if len(names) > 0 && !named(names, p.name) {
			continue
		}
		if *read >= maxValues {
			return append(out, remark(fmt.Sprintf("not read: the stack has more than %s values", thousands(maxValues))))
		}
		*read++
		w := raw{name: p.name, kind: p.kind, secret: p.secret}
		v.value(p, &w)
		out = append(out, w)
	}
	if left > 0 && len(names) == 0 {
		out = append(out, remark(fmt.Sprintf("%s more were not read", thousands(uint64(left)))))
	}
	return out
}

// frameReader makes one. Without order frames may be read in any order, and
// each by its own variables only.
func (th *Thread) frameReader(r remote.Reader, order bool) frameReader {
	l := th.rt.Layout
	if !atLeast(l.Version, 7, 0) {
		return &valueReader5{l: l, v: &l.Values, r: r, eg: th.eg, signatures: make(map[remote.Addr]*signature)}
	}
	v := &valueReader{l: l, v: &l.Values, r: r, signatures: make(map[remote.Addr]*signature), classes: make(map[remote.Addr]string)}
	if order {
		v.shared = make(map[sharedVar]remote.Addr)
	}
	return v
}

// valueReader reads the variables of one stack of PHP 7 or 8.
type valueReader struct {
	l          *Layout
	v          *ValueLayout
	r          remote.Reader
	signatures map[remote.Addr]*signature
	classes    map[remote.Addr]string
	shared     map[sharedVar]remote.Addr
}

func (v *valueReader) forget(fn remote.Addr) { delete(v.signatures, fn) }

// sharedVar is a variable that several frames have in common: those of a
// script and of the files that it includes.
type sharedVar struct {
	table remote.Addr
	name  string
}

// place is one variable of a frame and where its value is found.
type place struct {
	name   string
	kind   ValueKind
	secret bool
	at     remote.Addr
	direct bool // PHP 5: a zval* is there, not a zval**
}

func (v *valueReader) places(f *Frame) (list []place, left int, ok bool) {
	ed := make([]byte, v.l.EDSize)
	if err := remote.ReadFull(v.r, ed, f.ExecuteData); err != nil {
		return nil, 0, false
	}
	if sig := v.signature(f.Func); !sig.skip {
		list, left = v.slots(f.ExecuteData, ed, sig)
	}
	return list, left, true
}

func (v *valueReader) value(p *place, w *raw) { v.zval(p.at, w, 0) }

// remark stands in the place of values that are not there.
func remark(text string) raw { return raw{name: cutMark, kind: Variable, class: text} }

func named(names []string, name string) bool {
	for _, n := range names {
		if len(name) == len(n)+1 && name[1:] == n {
			return true
		}
	}
	return false
}

// slots lists a frame's variables, and counts those beyond maxFrameValues.
func (v *valueReader) slots(at remote.Addr, ed []byte, sig *signature) (places []place, left int) {
	word := func(off uint64) uint64 { return binary.LittleEndian.Uint64(ed[off:]) }
	passed := int(binary.LittleEndian.Uint32(ed[v.v.EDNumArgs:]))
	info := binary.LittleEndian.Uint32(ed[v.l.EDCallInfo:])
	// ZEND_CALL_FRAME_SLOT in Zend/zend_compile.h.
	first := at + remote.Addr((v.l.EDSize+zvalSize-1)/zvalSize*zvalSize)
	add := func(n int, s place) {
		if len(places) >= maxFrameValues {
			left++
			return
		}
		s.at = first + remote.Addr(n)*zvalSize
		places = append(places, s)
	}
	if uint8(info) == zObject && word(v.l.EDThis) != 0 {
		places = append(places, place{name: "$this", kind: This, at: at + remote.Addr(v.l.EDThis)})
	}
	if sig.kind == v.l.TypeInternal {
		for i := range min(passed, maxOplines) {
			if len(places) >= maxFrameValues {
				left = passed - i
				break
			}
			add(i, sig.parameter(i))
		}
		return places, left
	}
	symbols := remote.Addr(word(v.v.EDSymbols))
	if info&callHasSymbols == 0 && atLeast(v.l.Version, 7, 1) {
		symbols = 0 // what is there has not been set
	}
	arguments := sig.params
	if sig.variadic {
		arguments++
	}
	variable := func(i int) {
		s := place{name: "$" + sig.names[i], kind: Variable}
		if i < arguments {
			s.kind, s.secret = Argument, sig.secret(i)
		}
		n := len(places)
		add(i, s)
		if symbols == 0 || v.shared == nil || len(places) == n {
			return
		}
		// An included file works on its own copies of its includer's variables
		// and hands them back when it ends (zend_attach_symbol_table in
		// Zend/zend_execute.c): until then the includer's are out of date.
		key := sharedVar{symbols, sig.names[i]}
		if inner, ok := v.shared[key]; ok {
			places[n].at = inner
		} else {
			v.shared[key] = places[n].at
		}
	}
	for i := range min(arguments, len(sig.names)) {
		variable(i)
	}
	// Arguments beyond the declared ones lie behind the temporaries
	// (zend_copy_extra_args in Zend/zend_execute.c).
	for i := sig.params; i < min(passed, sig.params+maxOplines); i++ {
		if len(places) >= maxFrameValues {
			left += passed - i
			break
		}
		add(sig.vars+sig.temps+i-sig.params, sig.parameter(i))
	}
	for i := arguments; i < len(sig.names); i++ {
		variable(i)
	}
	left += sig.vars - len(sig.names)
	return places, left
}
