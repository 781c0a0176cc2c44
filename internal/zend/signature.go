package zend

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// signature is what a function tells of its variables.
type signature struct {
	kind     uint8
	params   int // without a variadic one
	variadic bool
	vars     int // compiled variables
	temps    int
	names    []string // of the compiled variables, or of an internal function's parameters
	marked   map[int]bool
	allMarks bool // some parameter is marked, and which one is not known
	skip     bool
}

// secret reports whether parameter i is marked as one.
func (s *signature) secret(i int) bool { return s.allMarks || s.marked[i] }

// parameter names argument i of an internal function, or one that a user
// function takes beyond those it declares.
func (s *signature) parameter(i int) place {
	p := place{kind: Argument, name: fmt.Sprintf("#%d", i+1), secret: s.secret(i)}
	name := func(n int) string {
		if n < len(s.names) {
			return s.names[n]
		}
		return ""
	}
	switch n := s.params; {
	case i < n && name(i) != "":
		p.name = "$" + name(i)
	case i >= n && s.variadic:
		if p.secret = s.secret(n); name(n) != "" {
			p.name = fmt.Sprintf("$%s[%d]", name(n), i-n)
		}
	}
	return p
}

// signature reads what a function says of its variables. What can't be read
// of it is left out.
func (v *valueReader) signature(at remote.Addr) *signature {
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
	s.kind = b[v.l.FuncType]
	flags := binary.LittleEndian.Uint32(b[v.l.FuncFlags:])
	s.params, s.variadic = count(v.v.FuncNumArgs), flags&v.v.AccVariadic != 0
	if attrs := v.v.FuncAttributes; attrs != 0 && word(attrs) != 0 {
		v.marks(word(attrs), s)
	}
	if s.kind == v.l.TypeInternal {
		declared := s.params
		if s.variadic {
			declared++
		}
		s.names = v.internalNames(word(v.v.FuncArgInfo), min(declared, maxFrameValues))
		return s
	}
	s.vars, s.temps = count(v.v.OpLastVar), count(v.v.OpTemps)
	// A trampoline for __call has no variables of its own; the frame turns
	// into that of __call with its first opline.
	s.skip = uint64(n) < v.l.FuncSize || flags&v.l.AccVia != 0 || s.vars > maxOplines || s.temps > maxOplines || s.params > maxOplines
	if !s.skip {
		s.names = v.variableNames(word(v.v.OpVars), min(s.vars, maxFrameValues))
	}
	return s
}

// variableNames reads op_array.vars. A name that can't be read is no reason to
// lose the others, but then nothing says that its value is no secret.
func (v *valueReader) variableNames(at remote.Addr, n int) []string {
	names := make([]string, n)
	b := make([]byte, 8*n)
	got, _ := v.r.ReadMemory(b, at)
	for i := range names {
		names[i] = unreadable
		if 8*i+8 > got {
			continue
		}
		if s, ok := v.string(remote.Addr(binary.LittleEndian.Uint64(b[8*i:])), maxVariable, nil); ok && s != "" {
			names[i] = s
		}
	}
	return names
}

// unreadable is the name of a variable whose name can't be read.
const unreadable = "?"

// internalNames reads the names of an internal function's parameters.
func (v *valueReader) internalNames(at remote.Addr, n int) []string {
	names := make([]string, n)
	if at == 0 {
		return names
	}
	size := int(v.v.ArgInfoSize)
	b := make([]byte, size*n)
	got, _ := v.r.ReadMemory(b, at)
	for i := range names {
		names[i] = unreadable
		if size*i+8 > got {
			continue
		}
		s, err := remote.CString(v.r, remote.Addr(binary.LittleEndian.Uint64(b[size*i:])), maxVariable)
		if (err == nil || errors.Is(err, remote.ErrUnterminated)) && s != "" {
			names[i] = s
		}
	}
	return names
}

// marks finds the parameters with #[SensitiveParameter]. When the attributes
// can't be read, all parameters count as marked.
func (v *valueReader) marks(table remote.Addr, s *signature) {
	s.allMarks = true
	b := make([]byte, arrayHeader)
	if remote.ReadFull(v.r, b, table) != nil || b[countedType]&countedMask != zArray {
		return
	}
	used := binary.LittleEndian.Uint32(b[v.v.ArrayUsed:])
	stride := v.v.BucketSize
	if v.v.PackedValues && b[v.v.ArrayFlags]&packedFlag != 0 {
		stride = zvalSize
	}
	if used > maxAttributes {
		return
	}
	data := make([]byte, uint64(used)*stride)
	if remote.ReadFull(v.r, data, remote.Addr(binary.LittleEndian.Uint64(b[v.v.ArrayData:]))) != nil {
		return
	}
	marked := make(map[int]bool)
	for i := range uint64(used) {
		z := data[i*stride:]
		if z[zvalType] == zUndef {
			continue
		}
		attr := remote.Addr(binary.LittleEndian.Uint64(z))
		name, err := remote.Pointer(v.r, attr+attrLowerName)
		if err != nil {
			return
		}
		text, ok := v.string(name, maxVariable, nil)
		if !ok {
			return
		}
		if text != sensitive {
			continue
		}
		if v.v.AttrParameter == 0 {
			return
		}
		n, err := remote.Uint32(v.r, attr+remote.Addr(v.v.AttrParameter))
		if err != nil || n == 0 || int(n) > s.params+1 {
			return
		}
		marked[int(n)-1] = true
	}
	s.marked, s.allMarks = marked, false
}
