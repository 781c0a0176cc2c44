package observe

import (
	"errors"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/zend"
)

// Reason is one word for why an observation failed, for counting.
func Reason(err error) string {
	var version *zend.UnsupportedError
	for _, k := range []struct {
		is   bool
		word string
	}{
		{errors.Is(err, proc.ErrNoProcess), "no_process"},
		{errors.Is(err, proc.ErrZombie), "no_process"},
		{errors.Is(err, ptrace.ErrTraced), "traced"},
		{errors.Is(err, proc.ErrPermission), "not_permitted"},
		{errors.Is(err, ptrace.ErrUnsupported), "no_engine"},
		{errors.Is(err, ErrNoBreakpoint), "no_breakpoint"},
		{errors.Is(err, zend.ErrNotPHP), "not_php"},
		{errors.As(err, &version), "php_version"},
		{errors.Is(err, zend.ErrNoVersion), "php_version"},
		{errors.Is(err, zend.ErrNoSymbols), "no_symbols"},
		{errors.Is(err, zend.ErrLayout), "layout"},
		{errors.Is(err, zend.ErrThreadSafe), "layout"},
	} {
		if k.is {
			return k.word
		}
	}
	return "other"
}
