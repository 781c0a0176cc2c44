package zend

import (
	"encoding/binary"
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// string reads the first limit bytes of a zend_string, and sets size to its
// length. A freed one has lost its type.
func (v *valueReader) string(at remote.Addr, limit int, size *uint64) (string, bool) {
	if at == 0 || at%8 != 0 {
		return "", false
	}
	b := make([]byte, v.l.StringVal)
	if remote.ReadFull(v.r, b, at) != nil || b[countedType]&countedMask != zString {
		return "", false
	}
	n := binary.LittleEndian.Uint64(b[v.l.StringLen:])
	if n > maxLength {
		return "", false
	}
	if size != nil {
		*size = n
	}
	text := make([]byte, min(n, uint64(limit)))
	if remote.ReadFull(v.r, text, at+remote.Addr(v.l.StringVal)) != nil {
		return "", false
	}
	return string(text), true
}

// zval reads a value into w.
func (v *valueReader) zval(at remote.Addr, w *raw, depth int) {
	w.typ = TypeUnknown
	var b [zvalSize]byte
	if at%8 != 0 || remote.ReadFull(v.r, b[:], at) != nil {
		return
	}
	bits := binary.LittleEndian.Uint64(b[:])
	to := remote.Addr(bits)
	switch code := b[zvalType]; {
	case code == zUndef:
		w.typ = TypeUndef
	case code == zNull:
		w.typ = TypeNull
	case code == zFalse, code == zTrue:
		w.typ, w.bits = TypeBool, uint64(code-zFalse)
	case code == zLong:
		w.typ, w.bits = TypeInt, bits
	case code == zDouble:
		w.typ, w.bits = TypeFloat, bits
	case code == zString:
		text, ok := v.string(to, look, &w.size)
		if ok {
			w.typ, w.text, w.at = TypeString, text, to
		}
	case code == zReference && depth < maxFollow && v.counted(to, zReference):
		v.zval(to+remote.Addr(v.v.ReferenceValue), w, depth+1)
	case code == v.v.CodeIndirect && depth < maxFollow:
		v.zval(to, w, depth+1)
	case code == v.v.CodeConstantAST, code == v.v.CodeConstant:
		w.typ = TypeConstant
	case code == zArray && v.counted(to, zArray):
		if n, err := remote.Uint32(v.r, to+remote.Addr(v.v.ArrayCount)); err == nil {
			w.typ, w.size = TypeArray, uint64(n)
		}
	case code == zResource && v.counted(to, zResource):
		if n, err := remote.Uint32(v.r, to+resourceHandle); err == nil {
			w.typ, w.bits = TypeResource, uint64(n)
		}
	case code == zObject && v.counted(to, zObject):
		v.object(to, w)
	}
}

func (v *valueReader) object(at remote.Addr, w *raw) {
	handle, err := remote.Uint32(v.r, at+remote.Addr(v.v.ObjectHandle))
	if err != nil {
		return
	}
	ce, err := remote.Pointer(v.r, at+remote.Addr(v.v.ObjectClass))
	if err != nil {
		return
	}
	class, ok := v.classes[ce]
	if !ok {
		name, err := remote.Pointer(v.r, ce+remote.Addr(v.l.ClassName))
		if err != nil {
			return
		}
		if class, ok = v.string(name, maxVariable, nil); !ok || class == "" {
			return
		}
		// The name of an anonymous class goes on behind a NUL with its place.
		class, _, _ = strings.Cut(class, "\x00")
		v.classes[ce] = class
	}
	w.typ, w.class, w.bits = TypeObject, class, uint64(handle)
}

// counted reports whether a counted struct is what the pointer to it says:
// memory that was freed and is in use again need not be.
func (v *valueReader) counted(at remote.Addr, code uint8) bool {
	if at == 0 || at%8 != 0 {
		return false
	}
	got, err := remote.Uint8(v.r, at+countedType)
	return err == nil && got&countedMask == code
}
