package zend

import (
	"errors"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func TestExecutorGlobalsAreVerifiedByTheirExceptionOp(t *testing.T) {
	for _, version := range knownVersions() {
		l, err := builtin(version, false, false)
		if err != nil {
			t.Fatal(err)
		}
		code := uint64(l.code("ZEND_HANDLE_EXCEPTION"))
		if code == 0 {
			t.Fatalf("%s has no ZEND_HANDLE_EXCEPTION", version)
		}
		ops := func(h *heap, off uint64) {
			for i := range uint64(exceptionOps) {
				h.put(egAt, off+i*l.OplineSize+l.OplineCode, 1, code)
			}
		}
		for _, tt := range []struct {
			name string
			set  func(h *heap)
			want uint64
			err  error
		}{
			{"where the table says", func(h *heap) { ops(h, l.EGExceptionOp) }, l.EGExceptionOp, nil},
			{"a patched engine has it elsewhere", func(h *heap) { ops(h, l.EGExceptionOp+24); h.put(egAt, l.EGExceptionOp+l.OplineCode, 1, 7) }, l.EGExceptionOp + 24, nil},
			{"before the engine has started", func(*heap) {}, 0, errNotStarted},
			{"not these globals", func(h *heap) { h.put(egAt, l.EGExceptionOp+l.OplineCode, 1, 7) }, 0, ErrLayout},
		} {
			t.Run(version+"/"+tt.name, func(t *testing.T) {
				h := newHeap(t, l)
				tt.set(h)
				got, err := (&Runtime{Layout: l}).calibrate(h, egAt)
				if got != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("got %d, %v; want %d, %v", got, err, tt.want, tt.err)
				}
			})
		}
	}
	if _, err := (&Runtime{Layout: table82(t)}).calibrate(newHeap(t, table82(t)), remote.Addr(0xdead0000)); err == nil {
		t.Error("unmapped globals: no error")
	}
}
