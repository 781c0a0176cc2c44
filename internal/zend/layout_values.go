package zend

import (
	"fmt"
	"strconv"
	"strings"
)

// ValueLayout are the members that lead to the values of variables. It stands
// apart from Layout's own: a build of which they are not known still has its
// frames read.
type ValueLayout struct {
	EDNumArgs, EDSymbols                               uint64
	FuncNumArgs, FuncArgInfo, FuncAttributes           uint64 // attributes: 0 before 8.0
	OpLastVar, OpTemps, OpVars                         uint64
	ArgInfoSize                                        uint64 // of an internal function's parameter, which begins with its name
	ArrayCount, ArrayUsed, ArrayData, ArrayFlags       uint64
	ObjectClass, ObjectHandle                          uint64
	ReferenceValue                                     uint64
	CodeConstant, CodeConstantAST, CodeIndirect        uint8  // zval.u1.v.type; 0 when there is no such type
	AccVariadic                                        uint32 // in fn_flags
	AttrParameter                                      uint64 // of zend_attribute; 0 when unknown
	PackedValues                                       bool   // packed arrays hold zvals, not Buckets
	BucketSize                                         uint64
	EDArguments, EDObject, EDCode, EDCalled, EGObjects uint64 // PHP 5
	Missing                                            string // members that the build does not tell; values can't be read then
}

// valueStructs are the C structs that a ValueLayout is read from.
var valueStructs = []string{"_zend_array", "_Bucket", "_zend_object", "_zend_reference", "_zend_internal_arg_info"}

// fillValues completes a layout whose Version is set.
func (l *Layout) fillValues(structs map[string]Struct) {
	l.Values.fill(structs)
	l.Values.setVersion(l.Version)
}

// fill takes the members by name.
func (l *ValueLayout) fill(structs map[string]Struct) {
	var missing []string
	get := func(dst *uint64, s, member string) {
		m, ok := structs[s].Members[member]
		if !ok {
			missing = append(missing, s+"."+member)
		}
		*dst = m[0]
	}
	size := func(dst *uint64, s string) {
		if *dst = structs[s].Size; *dst == 0 {
			missing = append(missing, "sizeof "+s)
		}
	}
	const ed, fn, ht = "_zend_execute_data", "_zend_op_array", "_zend_array"
	defer func() { l.Missing = strings.Join(missing, ", ") }()
	if _, php5 := structs[ed].Members["function_state.function"]; php5 {
		get(&l.EDArguments, ed, "function_state.arguments")
		get(&l.EDCalled, ed, "function_state.function")
		get(&l.EDObject, ed, "object")
		get(&l.EDCode, ed, "op_array")
		get(&l.EGObjects, "_zend_executor_globals", "objects_store")
		get(&l.FuncNumArgs, fn, "num_args")
		get(&l.FuncArgInfo, fn, "arg_info")
		get(&l.OpLastVar, fn, "last_var")
		get(&l.OpVars, fn, "vars")
		get(&l.ObjectClass, "_zend_object", "ce")
		return
	}
	get(&l.EDNumArgs, ed, "This.u2.num_args")
	get(&l.EDSymbols, ed, "symbol_table")
	get(&l.FuncNumArgs, fn, "num_args")
	get(&l.FuncArgInfo, fn, "arg_info")
	get(&l.OpLastVar, fn, "last_var")
	get(&l.OpTemps, fn, "T")
	get(&l.OpVars, fn, "vars")
	size(&l.ArgInfoSize, "_zend_internal_arg_info")
	get(&l.ArrayCount, ht, "nNumOfElements")
	get(&l.ArrayUsed, ht, "nNumUsed")
	get(&l.ArrayData, ht, "arData")
	get(&l.ArrayFlags, ht, "u.flags")
	size(&l.BucketSize, "_Bucket")
	get(&l.ObjectClass, "_zend_object", "ce")
	get(&l.ObjectHandle, "_zend_object", "handle")
	get(&l.ReferenceValue, "_zend_reference", "val")
	l.FuncAttributes = structs[fn].Members["attributes"][0]
}

// setVersion sets what no struct tells, by the version's number.
func (l *ValueLayout) setVersion(version string) {
	at := func(major, minor int) bool { return atLeast(version, major, minor) }
	// Zend/zend_types.h, "internal types".
	switch {
	case at(8, 0):
		l.CodeConstantAST, l.CodeIndirect = 11, 12
	case at(7, 3):
		l.CodeConstantAST, l.CodeIndirect = 11, 13
	default:
		l.CodeConstant, l.CodeConstantAST, l.CodeIndirect = 11, 12, 15
	}
	// ZEND_ACC_VARIADIC in Zend/zend_compile.h.
	l.AccVariadic = 1 << 24
	if at(7, 4) {
		l.AccVariadic = 1 << 14
	}
	// zend_attribute.offset in Zend/zend_attributes.h: behind two names, flags
	// and line, since 8.5 also behind what validation found. Later ones are not
	// taken for granted.
	switch {
	case at(8, 6):
	case at(8, 5):
		l.AttrParameter = 32
	case at(8, 0):
		l.AttrParameter = 24
	}
	l.PackedValues = at(8, 2) // Zend/zend_hash.h, arPacked
}

// err says why values can't be read with this layout.
func (l *ValueLayout) err() error {
	if l.Missing != "" {
		return fmt.Errorf("%w for values: no %s", ErrIncomplete, l.Missing)
	}
	return nil
}

// atLeast compares a version such as 8.2.36 or 8.2 with a minor version.
func atLeast(version string, major, minor int) bool {
	a, rest, _ := strings.Cut(version, ".")
	b, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return err1 == nil && err2 == nil && (x > major || x == major && y >= minor)
}
