// Package stack joins a thread's native frames with PHP's own frames into one
// list, leaf first, the way a person reads a backtrace.
//
// Contract: nothing is invented. Where the two stacks disagree (an execute_ex
// without PHP frames, PHP frames that no execute_ex runs) the joined stack
// keeps both sides and says so in Error.
//
// Non-goal: it neither unwinds nor reads memory; see packages symbolize and zend.
package stack

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// Kind tells native from PHP frames.
type Kind string

// The two kinds, spelt as in reports and captures.
const (
	Native Kind = "native"
	PHP    Kind = "php"
)

// Arg is one argument of a native frame; Value is a decimal, hexadecimal or
// symbolic form meant for people.
type Arg struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Value is a variable of a PHP frame in a form meant for people: shortened,
// printable, and redacted when it may be a secret.
type Value struct {
	Name     string `json:"name"` // $row; #3 for an argument without a name
	Kind     string `json:"kind"` // argument, variable or this
	Type     string `json:"type"`
	Value    string `json:"value"`
	Redacted bool   `json:"redacted"`
}

// Frame is one frame of a joined stack. Which fields mean something depends on
// Kind; the others stay zero.
type Frame struct {
	Kind     Kind
	Function string // canonical name, "" when unknown
	File     string // source file (native: from DWARF; PHP: the script)
	Line     int    // 0 when unknown

	// Native frames.
	Raw     string      // the name as the symbol table or DWARF spells it
	Module  string      // base name of the ELF file
	PC      remote.Addr // as found on the stack: callers hold return addresses
	Offset  uint64      // bytes from the function's start; from the module's load address when the function is unknown
	Inlined bool
	How     string // entry, cfi, frame-pointer, scan, tail-call or inline
	Args    []Arg

	// PHP frames.
	Class    string
	Internal bool    // implemented in C, such as usort
	Opcode   string  // of the line that runs, such as ZEND_ASSIGN_OP; "" when unknown
	Defined  int     // line on which a closure begins; 0 for anything with a name
	Via      bool    // listed by PHP 5 only, and without a place of its own; not in reports
	Values   []Value // nil when nobody asked for them
}

// Unresolved reports whether a native frame has no function name.
func (f *Frame) Unresolved() bool { return f.Kind == Native && f.Function == "" }

// QualifiedName is the PHP name with its class, or the native function's name;
// "??" when unknown.
func (f *Frame) QualifiedName() string {
	switch {
	case f.Function == "":
		return "??"
	case f.Class != "":
		return f.Class + "::" + f.Function
	}
	return f.Function
}

// End says how a stack ended.
type End string

// Root: the walk reached the thread's first frame. Truncated: it stopped
// before, and Stack.Error says why.
const (
	Root      End = "root"
	Truncated End = "truncated"
)

// Stack is one thread's joined stack, leaf first.
type Stack struct {
	Frames []Frame `json:"frames"`
	End    End     `json:"end"`
	Error  string  `json:"error"`
}

// nativeJSON and phpJSON are the two shapes of a frame in phpwhy/report/v1 and
// phpwhy/capture/v1.
type nativeJSON struct {
	Kind     Kind   `json:"kind"`
	Function string `json:"function"`
	Raw      string `json:"raw"`
	Module   string `json:"module"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	PC       string `json:"pc"`
	Offset   uint64 `json:"offset"`
	Inlined  bool   `json:"inlined"`
	How      string `json:"how"`
	Args     []Arg  `json:"args"`
}

type phpJSON struct {
	Kind     Kind   `json:"kind"`
	Function string `json:"function"`
	Class    string `json:"class"`
	File     string `json:"file"`
	Line     int    `json:"line"`
	Internal bool   `json:"internal"`
	Opcode   string `json:"opcode"`
	Defined  int    `json:"defined_line,omitempty"`
	// An empty list says that they were asked for and that there are none.
	Values []Value `json:"values,omitzero"`
}

// MarshalJSON writes the shape that belongs to the frame's kind, every field present.
func (f Frame) MarshalJSON() ([]byte, error) {
	if f.Kind == PHP {
		return marshal(phpJSON{f.Kind, f.Function, f.Class, f.File, f.Line, f.Internal, f.Opcode, f.Defined, f.Values})
	}
	args := f.Args
	if args == nil {
		args = []Arg{}
	}
	return marshal(nativeJSON{f.Kind, f.Function, f.Raw, f.Module, f.File, f.Line,
		f.PC.String(), f.Offset, f.Inlined, f.How, args})
}

// marshal is json.Marshal without its escaping for HTML: C++ names are full of "<".
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// unmarshal is json.Unmarshal that refuses names it does not know.
func unmarshal(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// UnmarshalJSON reads either shape, and refuses fields that belong to neither.
func (f *Frame) UnmarshalJSON(b []byte) error {
	var k struct {
		Kind Kind `json:"kind"`
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return err
	}
	switch k.Kind {
	case PHP:
		var p phpJSON
		if err := unmarshal(b, &p); err != nil {
			return err
		}
		*f = Frame{Kind: PHP, Function: p.Function, Class: p.Class, File: p.File, Line: p.Line, Internal: p.Internal, Opcode: p.Opcode, Defined: p.Defined, Values: p.Values}
	case Native:
		var n nativeJSON
		if err := unmarshal(b, &n); err != nil {
			return err
		}
		pc, err := strconv.ParseUint(n.PC, 0, 64)
		if err != nil {
			return fmt.Errorf("frame's pc %q: %w", n.PC, err)
		}
		*f = Frame{Kind: Native, Function: n.Function, Raw: n.Raw, Module: n.Module, File: n.File, Line: n.Line,
			PC: remote.Addr(pc), Offset: n.Offset, Inlined: n.Inlined, How: n.How, Args: n.Args}
	default:
		return fmt.Errorf("frame of kind %q: want native or php", k.Kind)
	}
	return nil
}
