package zend

import (
	"fmt"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// maxGlobals is how far into executor_globals exception_op is looked for, in bytes.
const maxGlobals = 4096

// calibrate compares the layout with the one part of executor_globals whose
// content is known: exception_op, three oplines ZEND_HANDLE_EXCEPTION that
// zend_init_exception_op writes once at start (Zend/zend_exceptions.c). It
// returns where they are, which a patched engine or a new release may differ
// in, and an error when executor_globals can't be those of this version.
func (rt *Runtime) calibrate(r remote.Reader, eg remote.Addr) (uint64, error) {
	l := rt.Layout
	code := l.code("ZEND_HANDLE_EXCEPTION")
	if code == 0 {
		return l.EGExceptionOp, nil
	}
	b := make([]byte, maxGlobals)
	n, err := r.ReadMemory(b, eg)
	if uint64(n) < l.EGExceptionOp+exceptionOps*l.OplineSize {
		return 0, fmt.Errorf("executor_globals: %w", err)
	}
	b = b[:n]
	at := func(off uint64) bool {
		for i := range uint64(exceptionOps) {
			if o := off + i*l.OplineSize + l.OplineCode; o >= uint64(len(b)) || b[o] != code {
				return false
			}
		}
		return true
	}
	if at(l.EGExceptionOp) {
		return l.EGExceptionOp, nil
	}
	// EG(exception_op) does not start before the pointers the walk begins at.
	for off := uint64(8); off < uint64(len(b)); off += 8 {
		if at(off) {
			return off, nil
		}
	}
	if b[l.EGExceptionOp+l.OplineCode] == 0 {
		return 0, errNotStarted
	}
	return 0, fmt.Errorf("%w: executor_globals has no exception_op", ErrLayout)
}

var errNotStarted = fmt.Errorf("%w: the engine has not started", ErrLayout)

// code finds an opcode's number by its name, 0 when there is none.
func (l *Layout) code(name string) uint8 {
	for i, s := range l.opcodes {
		if s == name && i < 256 {
			return uint8(i)
		}
	}
	return 0
}
