package zend

import (
	"encoding/binary"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// PHP 5 keeps values apart from variables: a compiled variable is a zval**,
// right behind execute_data, NULL as long as its code has not come upon it. The
// arguments of a call lie on the argument stack as zval*, below their number,
// and its caller knows where (Zend/zend_execute.c of 5.6, i_create_execute_data).

// struct _zval_struct { union { long; double; HashTable *; struct { char *; int };
// struct { handle; handlers } } value; refcount; type; is_ref; } (Zend/zend.h),
// and what else is the same in every build of 5.6.
const (
	zval5Size, zval5Length, zval5Type = 24, 8, 20

	z5Null, z5Long, z5Double, z5Bool       = 0, 1, 2, 3
	z5Array, z5Object, z5String            = 4, 5, 6
	z5Resource, z5Constant, z5ConstantAST  = 7, 8, 9
	z5Mask                                 = 0x0f  // IS_CONSTANT_TYPE_MASK
	compiledSize, compiledLength           = 24, 8 // zend_compiled_variable
	argInfo5Size                           = 32    // zend_arg_info, which begins like that
	hashCount                              = 8     // HashTable.nNumOfElements
	objectBucket, objectAt, maxObjectCount = 64, 8, 1 << 28
)

// valueReader5 reads the variables of one stack of PHP 5.
type valueReader5 struct {
	l          *Layout
	v          *ValueLayout
	r          remote.Reader
	eg         remote.Addr
	signatures map[remote.Addr]*signature
}

func (v *valueReader5) forget(fn remote.Addr) { delete(v.signatures, fn) }

func (v *valueReader5) places(f *Frame) (list []place, left int, ok bool) {
	ed := make([]byte, v.l.EDSize)
	if err := remote.ReadFull(v.r, ed, f.ExecuteData); err != nil {
		return nil, 0, false
	}
	word := func(off uint64) remote.Addr { return remote.Addr(binary.LittleEndian.Uint64(ed[off:])) }
	sig := v.signature(f.Func)
	switch {
	case sig.skip:
	case word(v.v.EDCode) == f.Func:
		list, left = v.code(f.ExecuteData, word(v.l.EDPrev), sig)
	case word(v.v.EDCalled) == f.Func && sig.kind == v.l.TypeInternal:
		list, left = v.arguments(nil, word(v.v.EDArguments), sig, 0)
	}
	return list, left, true
}

// code lists the variables of PHP code, and what its caller knows of the call.
func (v *valueReader5) code(at, caller remote.Addr, sig *signature) (places []place, left int) {
	arguments := sig.params
	if sig.variadic {
		arguments++
	}
	if caller != 0 {
		if this := caller + remote.Addr(v.v.EDObject); v.points(this) {
			places = append(places, place{name: "$this", kind: This, at: this, direct: true})
		}
	}
	variable := func(i int) {
		if len(places) >= maxFrameValues {
			left++
			return
		}
		p := place{name: "$" + sig.names[i], kind: Variable, at: at + remote.Addr(v.l.EDSize+7)&^7 + remote.Addr(8*i)}
		if i < arguments {
			p.kind = Argument
		}
		places = append(places, p)
	}
	for i := range min(arguments, len(sig.names)) {
		variable(i)
	}
	if caller != 0 {
		if top, err := remote.Pointer(v.r, caller+remote.Addr(v.v.EDArguments)); err == nil {
			var more int
			places, more = v.arguments(places, top, sig, sig.params)
			left += more
		}
	}
	for i := arguments; i < len(sig.names); i++ {
		variable(i)
	}
	return places, left + sig.vars - len(sig.names)
}

// points reports whether a pointer is there and not NULL.
func (v *valueReader5) points(at remote.Addr) bool {
	p, err := remote.Pointer(v.r, at)
	return err == nil && p != 0
}

// arguments adds the arguments of a call from number first on.
func (v *valueReader5) arguments(places []place, top remote.Addr, sig *signature, first int) (out []place, left int) {
	if top == 0 || top%8 != 0 {
		return places, 0
	}
	passed, err := remote.Uint32(v.r, top)
	if err != nil || uint64(passed)*8 > uint64(top) || passed > maxOplines {
		return places, 0
	}
	for i := first; i < int(passed); i++ {
		if len(places) >= maxFrameValues {
			return places, int(passed) - i
		}
		p := sig.parameter(i)
		p.at, p.direct = top-remote.Addr(8*(int(passed)-i)), true
		places = append(places, p)
	}
	return places, 0
}

// signature reads what a function says of its variables.
func (v *valueReader5) signature(at remote.Addr) *signature {
	if s, ok := v.signatures[at]; ok {
		return s
	}
	s := &signature{}
	v.signatures[at] = s
	b := make([]byte, v.l.FuncSize)
	n, err := v.r.ReadMemory(b, at)
	if err != nil && uint64(n) < v.l.InternalHandler+8 {
		s.skip = true
		return s
	}
	word := func(off uint64) remote.Addr { return remote.Addr(binary.LittleEndian.Uint64(b[off:])) }
	count := func(off uint64) int { return int(binary.LittleEndian.Uint32(b[off:])) }
	flags := binary.LittleEndian.Uint32(b[v.l.FuncFlags:])
	s.kind, s.params, s.variadic = b[v.l.FuncType], count(v.v.FuncNumArgs), flags&v.v.AccVariadic != 0
	// PHP 5 counts a variadic parameter among the others.
	if s.variadic && s.params > 0 {
		s.params--
	}
	if s.kind == v.l.TypeInternal {
		declared := min(s.params, maxFrameValues)
		if s.variadic {
			declared++
		}
		if info := word(v.v.FuncArgInfo); info != 0 {
			s.names = v.names(info, declared, argInfo5Size)
		}
		return s
	}
	s.vars = count(v.v.OpLastVar)
	if s.skip = uint64(n) < v.l.FuncSize || s.vars > maxOplines || s.params > maxOplines; !s.skip {
		s.names = v.names(word(v.v.OpVars), min(s.vars, maxFrameValues), compiledSize)
	}
	return s
}

// names reads the names of n variables or parameters; both begin with a
// pointer and a length.
func (v *valueReader5) names(at remote.Addr, n, size int) []string {
	names := make([]string, n)
	b := make([]byte, n*size)
	got, _ := v.r.ReadMemory(b, at)
	for i := range names {
		names[i] = unreadable
		if got < (i+1)*size {
			continue
		}
		length := binary.LittleEndian.Uint32(b[i*size+compiledLength:])
		if length == 0 || length > maxName {
			continue
		}
		text := make([]byte, min(length, maxVariable))
		if remote.ReadFull(v.r, text, remote.Addr(binary.LittleEndian.Uint64(b[i*size:]))) == nil {
			names[i] = string(text)
		}
	}
	return names
}

func (v *valueReader5) value(p *place, w *raw) {
	w.typ = TypeUnknown
	to, err := remote.Pointer(v.r, p.at)
	if err == nil && to != 0 && !p.direct {
		to, err = remote.Pointer(v.r, to)
	}
	switch {
	case err != nil || to%8 != 0:
	case to == 0:
		w.typ = TypeUndef
	default:
		v.zval(to, w)
	}
}

func (v *valueReader5) zval(at remote.Addr, w *raw) {
	var b [zval5Size]byte
	if remote.ReadFull(v.r, b[:], at) != nil {
		return
	}
	bits := binary.LittleEndian.Uint64(b[:])
	to := remote.Addr(bits)
	switch b[zval5Type] & z5Mask {
	case z5Null:
		w.typ = TypeNull
	case z5Bool:
		w.typ, w.bits = TypeBool, bits&0xff
	case z5Long:
		w.typ, w.bits = TypeInt, bits
	case z5Double:
		w.typ, w.bits = TypeFloat, bits
	case z5Resource:
		w.typ, w.bits = TypeResource, bits
	case z5Constant, z5ConstantAST:
		w.typ = TypeConstant
	case z5Array:
		if n, err := remote.Uint32(v.r, to+hashCount); err == nil {
			w.typ, w.size = TypeArray, uint64(n)
		}
	case z5String:
		n := binary.LittleEndian.Uint32(b[zval5Length:])
		text := make([]byte, min(n, look))
		if int32(n) >= 0 && remote.ReadFull(v.r, text, to) == nil {
			w.typ, w.size, w.text, w.at = TypeString, uint64(n), string(text), to
		}
	case z5Object:
		v.object(uint32(bits), w)
	}
}

// object finds an object by its handle in EG(objects_store). All objects of
// the engine begin with a zend_object, and so with their class.
func (v *valueReader5) object(handle uint32, w *raw) {
	buckets, err := remote.Pointer(v.r, v.eg+remote.Addr(v.v.EGObjects))
	if err != nil || handle > maxObjectCount {
		return
	}
	at := buckets + remote.Addr(handle)*objectBucket + objectAt
	for _, off := range []uint64{0, v.v.ObjectClass, v.l.ClassName} {
		if at, err = remote.Pointer(v.r, at+remote.Addr(off)); err != nil || at == 0 {
			return
		}
	}
	class, err := remote.CString(v.r, at, maxVariable)
	if err != nil || class == "" || strings.ContainsAny(class, "\n\r\t") {
		return
	}
	w.typ, w.class, w.bits = TypeObject, class, uint64(handle)
}
