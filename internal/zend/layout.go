package zend

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// The tables were read from the DWARF of real builds of each version: offsets
// and sizes in bytes, call-info constants shifted to their place in
// zval.u1.type_info.
//
//go:embed layouts/*.json
var tables embed.FS

// Members are a struct's members by dotted path: offset and size in bytes.
type Members map[string][2]uint64

// Struct is a C struct's size and members.
type Struct struct {
	Size    uint64
	Members Members
}

// Types finds structs by their C name, as DWARF has them.
type Types interface {
	Structs(names ...string) (map[string]Struct, error)
}

// LayoutSource says where a layout came from.
type LayoutSource string

// The sources.
const (
	FromDWARF LayoutSource = "dwarf"
	Builtin   LayoutSource = "builtin"
)

// Layout are the offsets, sizes and constants of one build of PHP, in bytes.
type Layout struct {
	Source  LayoutSource
	Version string // of the build the table was read from

	EGCurrent, EGStack, EGStackTop, EGExceptionOp, EGBeforeException uint64
	EDOpline, EDFunc, EDThis, EDCallInfo, EDPrev, EDSize             uint64
	GenExecuteData, GenFake, GenParent                               uint64
	FuncType, FuncFlags, FuncName, FuncScope, FuncSize               uint64
	OpFilename, OpLineStart, OpLineEnd, OpOpcodes, OpLast            uint64
	OplineSize, OplineLine, OplineCode, OplineExtended               uint64
	InternalHandler                                                  uint64
	StringLen, StringVal                                             uint64
	ClassName                                                        uint64
	SGStarted, SGMethod, SGURI, SGQuery, SGScript, SGTime            uint64
	HeapSize, HeapPeak, HeapReal, HeapRealPeak, HeapLimit            uint64
	ChunkHeap, ChunkHeapSlot                                         uint64
	Values                                                           ValueLayout

	// Fibers, 0 before 8.1.
	EGActiveFiber, EGMainContext uint64
	FiberContext, FiberCaller    uint64
	ContextHandle, ContextStack  uint64

	// Frames are those of PHP 5: see php5.go.
	PHP5                         bool
	EDState, EDOpArray, EDNested uint64

	Facts FactMembers

	constants
	opcodes []string
}

// constants are macros, which -g leaves out of DWARF.
type constants struct {
	CallTop                          uint32
	AccClosure, AccGenerator, AccVia uint32
	TypeInternal, TypeUser, TypeEval uint8
}

// Opcode names an opcode, "" when it is not known.
func (l *Layout) Opcode(n uint8) string {
	if int(n) < len(l.opcodes) {
		return l.opcodes[n]
	}
	return ""
}

type buildFile struct {
	PHP       string                                `json:"php"`
	Structs   map[string]map[string]json.RawMessage `json:"structs"`
	Constants map[string]uint32                     `json:"constants"`
}

// variant names a build as the tables' files do.
func variant(zts, debug bool) string {
	s := "nts"
	if zts {
		s = "zts"
	}
	if debug {
		s += "-debug"
	}
	return s
}

// parsed are the tables that were asked for before: a host's workers mostly run
// the same few builds, and decoding a table takes longer than reading a stack.
var parsed sync.Map // from the table's name to *Layout, which is not changed

// builtin loads the table for a version such as "8.2". The caller may change it.
func builtin(minor string, zts, debug bool) (*Layout, error) {
	name := minor + "-" + variant(zts, debug)
	l, ok := parsed.Load(name)
	if !ok {
		table, err := decodeTable(minor, zts, debug)
		if err != nil {
			return nil, err
		}
		l, _ = parsed.LoadOrStore(name, table)
	}
	own := *l.(*Layout)
	return &own, nil
}

func decodeTable(minor string, zts, debug bool) (*Layout, error) {
	b, err := tables.ReadFile("layouts/" + minor + "-" + variant(zts, debug) + ".json")
	if err != nil {
		return nil, &UnsupportedError{Version: minor, Variant: variant(zts, debug), Known: knownVersions()}
	}
	var f buildFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("built-in table for %s: %w", minor, err)
	}
	structs := make(map[string]Struct, len(f.Structs))
	for name, raw := range f.Structs {
		s := Struct{Members: make(Members, len(raw))}
		for k, v := range raw {
			var m []uint64
			if k == "@size" && json.Unmarshal(v, &s.Size) == nil {
				continue
			}
			if err := json.Unmarshal(v, &m); err != nil || len(m) < 2 {
				return nil, fmt.Errorf("built-in table for %s: %s.%s", minor, name, k)
			}
			s.Members[k] = [2]uint64{m[0], m[1]}
		}
		structs[name] = s
	}
	l := &Layout{Source: Builtin, Version: f.PHP}
	if err := errors.Join(l.fill(structs), l.set(f.Constants, strings.HasPrefix(minor, "5."))); err != nil {
		return nil, fmt.Errorf("built-in table for %s: %w", minor, err)
	}
	l.fillValues(structs)
	ops, err := tables.ReadFile("layouts/opcodes-" + minor + ".json")
	if err != nil {
		return nil, fmt.Errorf("built-in opcodes for %s: %w", minor, err)
	}
	if err := json.Unmarshal(ops, &l.opcodes); err != nil {
		return nil, fmt.Errorf("built-in opcodes for %s: %w", minor, err)
	}
	return l, nil
}

// agreed is what all tables of a major version have in common of that which
// DWARF doesn't tell: constants, and the names of opcodes. It serves a version
// that has no table of its own.
func agreed(version string) (*Layout, error) {
	major, _, _ := strings.Cut(version, ".")
	var out *Layout
	for _, v := range knownVersions() {
		if m, _, _ := strings.Cut(v, "."); m != major {
			continue
		}
		l, err := builtin(v, false, false)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = &Layout{constants: l.constants, opcodes: l.opcodes}
			continue
		}
		if l.constants != out.constants {
			return nil, fmt.Errorf("%w: the constants of PHP %s differ between %s and others", ErrIncomplete, major, v)
		}
		out.opcodes = common(out.opcodes, l.opcodes)
	}
	if out == nil {
		return nil, fmt.Errorf("%w: no table for any PHP %s", ErrIncomplete, major)
	}
	out.Version = version
	return out, nil
}

// common keeps the names that both lists have for a number.
func common(a, b []string) []string {
	out := make([]string, min(len(a), len(b)))
	for i := range out {
		if a[i] == b[i] {
			out[i] = a[i]
		}
	}
	return out
}

// structNames are the C structs that a layout is read from.
var structNames = []string{
	"_zend_executor_globals", "_zend_execute_data", "_zend_op_array", "_zend_op", "_zend_string", "_zend_class_entry",
	"_zend_internal_function", "_sapi_globals_struct", "_zend_mm_heap", "_zend_mm_chunk", "_zend_generator",
	"_zend_fiber", "_zend_fiber_context",
}

// fromDWARF reads the offsets from the binary itself, and takes the rest from
// another layout.
func fromDWARF(t Types, base *Layout) (*Layout, error) {
	structs, err := t.Structs(append(structNames, valueStructs...)...)
	if err != nil {
		return nil, err
	}
	l := &Layout{Source: FromDWARF, Version: base.Version, opcodes: base.opcodes, constants: base.constants}
	if err := l.fill(structs); err != nil {
		return nil, err
	}
	l.fillValues(structs)
	return l, nil
}

// fill takes the members by name and reports every one that is missing.
func (l *Layout) fill(structs map[string]Struct) error {
	l.Facts.fill(structs)
	// Only PHP 5 keeps the function that a frame calls beside its op_array.
	_, l.PHP5 = structs["_zend_execute_data"].Members["function_state.function"]
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
	const eg, ed, fn, op = "_zend_executor_globals", "_zend_execute_data", "_zend_op_array", "_zend_op"
	get(&l.EGCurrent, eg, "current_execute_data")
	get(&l.EGExceptionOp, eg, "exception_op")
	get(&l.EGBeforeException, eg, "opline_before_exception")
	get(&l.EDOpline, ed, "opline")
	get(&l.EDPrev, ed, "prev_execute_data")
	size(&l.EDSize, ed)
	get(&l.FuncType, fn, "type")
	get(&l.FuncFlags, fn, "fn_flags")
	get(&l.FuncName, fn, "function_name")
	get(&l.FuncScope, fn, "scope")
	size(&l.FuncSize, fn)
	get(&l.OpFilename, fn, "filename")
	get(&l.OpLineStart, fn, "line_start")
	get(&l.OpLineEnd, fn, "line_end")
	get(&l.OpOpcodes, fn, "opcodes")
	get(&l.OpLast, fn, "last")
	size(&l.OplineSize, op)
	get(&l.OplineLine, op, "lineno")
	get(&l.OplineCode, op, "opcode")
	get(&l.OplineExtended, op, "extended_value")
	get(&l.InternalHandler, "_zend_internal_function", "handler")
	get(&l.ClassName, "_zend_class_entry", "name")
	const sg = "_sapi_globals_struct"
	get(&l.SGStarted, sg, "sapi_started")
	get(&l.SGMethod, sg, "request_info.request_method")
	get(&l.SGURI, sg, "request_info.request_uri")
	get(&l.SGQuery, sg, "request_info.query_string")
	get(&l.SGScript, sg, "request_info.path_translated")
	get(&l.SGTime, sg, "global_request_time")
	get(&l.HeapSize, "_zend_mm_heap", "size")
	get(&l.HeapPeak, "_zend_mm_heap", "peak")
	get(&l.HeapReal, "_zend_mm_heap", "real_size")
	get(&l.HeapRealPeak, "_zend_mm_heap", "real_peak")
	get(&l.HeapLimit, "_zend_mm_heap", "limit")
	if _, ok := structs[eg].Members["active_fiber"]; ok {
		get(&l.EGActiveFiber, eg, "active_fiber")
		get(&l.EGMainContext, eg, "main_fiber_context")
		get(&l.FiberContext, "_zend_fiber", "context")
		get(&l.FiberCaller, "_zend_fiber", "caller")
		get(&l.ContextHandle, "_zend_fiber_context", "handle")
		get(&l.ContextStack, "_zend_fiber_context", "stack")
	}
	if l.PHP5 {
		get(&l.EGStack, eg, "argument_stack")
		get(&l.EDState, ed, "function_state.function")
		get(&l.EDOpArray, ed, "op_array")
		get(&l.EDNested, ed, "nested")
	} else {
		get(&l.EGStack, eg, "vm_stack")
		get(&l.EGStackTop, eg, "vm_stack_top")
		get(&l.EDFunc, ed, "func")
		get(&l.EDThis, ed, "This.value.obj")
		get(&l.EDCallInfo, ed, "This.u1.type_info")
		get(&l.GenExecuteData, "_zend_generator", "execute_data")
		get(&l.GenFake, "_zend_generator", "execute_fake")
		get(&l.GenParent, "_zend_generator", "node.parent")
		get(&l.StringLen, "_zend_string", "len")
		get(&l.StringVal, "_zend_string", "val")
		get(&l.ChunkHeap, "_zend_mm_chunk", "heap")
		get(&l.ChunkHeapSlot, "_zend_mm_chunk", "heap_slot")
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: no %s", ErrIncomplete, strings.Join(missing, ", "))
	}
	return nil
}

// set takes the constants by name and reports every one that is missing.
func (c *constants) set(values map[string]uint32, php5 bool) error {
	var missing []string
	get := func(dst *uint32, name string) {
		v, ok := values[name]
		if !ok {
			missing = append(missing, name)
		}
		*dst = v
	}
	kind := func(dst *uint8, name string) {
		var v uint32
		get(&v, name)
		*dst = uint8(v)
	}
	if !php5 { // which has neither call information nor trampolines
		get(&c.CallTop, "ZEND_CALL_TOP")
		get(&c.AccVia, "ZEND_ACC_CALL_VIA_TRAMPOLINE")
	}
	get(&c.AccClosure, "ZEND_ACC_CLOSURE")
	get(&c.AccGenerator, "ZEND_ACC_GENERATOR")
	kind(&c.TypeInternal, "ZEND_INTERNAL_FUNCTION")
	kind(&c.TypeUser, "ZEND_USER_FUNCTION")
	kind(&c.TypeEval, "ZEND_EVAL_CODE")
	if len(missing) > 0 {
		return fmt.Errorf("%w: no %s", ErrIncomplete, strings.Join(missing, ", "))
	}
	return nil
}
