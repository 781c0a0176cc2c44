package zend

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// call5 makes an execute_data of PHP 5. code is 0 for a call from C.
func (h *heap) call5(code, state, prev remote.Addr, op uint64) remote.Addr {
	at := h.alloc(h.l.EDSize)
	h.ptr(at, h.l.EDOpArray, code)
	h.ptr(at, h.l.EDState, state)
	h.ptr(at, h.l.EDPrev, prev)
	if code != 0 {
		h.ptr(at, h.l.EDOpline, h.opline(code, op))
	}
	return at
}

func TestPHP5Frames(t *testing.T) {
	for _, variant := range []string{"nts", "zts", "nts-debug", "zts-debug"} {
		l, err := builtin("5.6", strings.HasPrefix(variant, "zts"), strings.HasSuffix(variant, "debug"))
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name  string
			build func(h *heap) remote.Addr
			want  []string
			err   error
		}{
			{"code that calls an internal function", func(h *heap) remote.Addr {
				return h.call5(h.user("", "", "/a.php", 3, 4), h.internal("sleep", 0x7000), 0, 1)
			}, []string{"sleep", "{main} /a.php:4!"}, nil},
			{"a callback has an execute_data of C between it and its caller", func(h *heap) remote.Addr {
				main := h.call5(h.user("", "", "/a.php", 3, 4), h.internal("usort", 0x7000), 0, 1)
				compare := h.user("compare", `App\Item`, "/b.php", 7, 8, 9)
				fromC := h.call5(0, compare, main, 0)
				return h.call5(compare, compare, fromC, 2)
			}, []string{`App\Item::compare /b.php:9!`, "usort", "{main} /a.php:4!"}, nil},
			{"nested code runs in its caller's execute_ex", func(h *heap) remote.Addr {
				inner := h.user("inner", "", "/a.php", 7)
				main := h.call5(h.user("", "", "/a.php", 3, 4), inner, 0, 1)
				at := h.call5(inner, inner, main, 0)
				h.put(at, l.EDNested, 1, 1)
				return at
			}, []string{"inner /a.php:7", "{main} /a.php:4!"}, nil},
			{"a function that has left, and whose variables are destroyed", func(h *heap) remote.Addr {
				main := h.call5(h.user("", "", "/a.php", 3, 4), h.user("left", "", "/a.php", 9), 0, 0)
				destruct := h.user("__destruct", "Guard", "/a.php", 7)
				return h.call5(destruct, destruct, h.call5(0, destruct, main, 0), 0)
			}, []string{"Guard::__destruct /a.php:7!", "left /a.php:0", "{main} /a.php:3!"}, nil},
			{"a cycle", func(h *heap) remote.Addr {
				code := h.user("f", "", "/a.php", 3)
				at := h.call5(code, code, 0, 0)
				h.ptr(at, l.EDPrev, at)
				return at
			}, []string{"f /a.php:3!"}, ErrCycle},
			{"a wild pointer", func(h *heap) remote.Addr {
				code := h.user("f", "", "/a.php", 3)
				return h.call5(code, code, 0xdead0000, 0)
			}, []string{"f /a.php:3!"}, ErrWild},
			{"an op_array that is none", func(h *heap) remote.Addr {
				code := h.user("f", "", "/a.php", 3)
				h.put(code, l.FuncType, 1, 77)
				return h.call5(code, code, 0, 0)
			}, []string{}, ErrLayout},
			{"control bytes for a file name", func(h *heap) remote.Addr {
				code := h.user("f", "", "/a\x01.php", 3)
				return h.call5(code, code, 0, 0)
			}, []string{}, ErrLayout},
		} {
			t.Run(variant+"/"+tt.name, func(t *testing.T) {
				h := newHeap(t, l)
				s := h.walk(tt.build(h))
				if !errors.Is(s.Err, tt.err) {
					t.Errorf("got %v, want %v", s.Err, tt.err)
				}
				if d := cmp.Diff(tt.want, lines(s.Frames)); d != "" {
					t.Error(d)
				}
			})
		}
	}
}
