package zend

import (
	"strings"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// framelessCall is how the opcodes begin that call an internal function without
// making a frame for it, since 8.4 (Zend/zend_frameless_function.h).
const framelessCall = "ZEND_FRAMELESS_ICALL"

// maxFrameless bounds the table of such functions, which has some 40.
const maxFrameless = 1 << 16

// Frameless names the internal function that a frame calls without a frame of
// its own, "in_array". stack is the snapshot; the engine's table does not
// change while PHP runs, and is read through r.
func (rt *Runtime) Frameless(r, stack remote.Reader, f *Frame) (name string, ok bool) {
	if f.Internal || !strings.HasPrefix(f.Opcode, framelessCall) {
		return "", false
	}
	at, _, ok := rt.symbol("zend_flf_functions")
	if !ok {
		return "", false
	}
	n, err := remote.Uint32(stack, f.opline+remote.Addr(rt.Layout.OplineExtended))
	if err != nil || n > maxFrameless {
		return "", false
	}
	table, err := remote.Pointer(r, at)
	if err != nil || table == 0 {
		return "", false
	}
	fn, err := remote.Pointer(r, table+remote.Addr(8*n))
	if err != nil {
		return "", false
	}
	called := rt.function(r, fn)
	if called.err != nil || called.kind != rt.Layout.TypeInternal || called.name == "" {
		return "", false
	}
	return called.name, true
}
