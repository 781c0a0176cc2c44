package zend_test

import (
	"encoding/binary"
	"testing"

	"github.com/phpwhy/phpwhy/internal/zend"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func TestSavedRegistersOfAFiberOnArm64(t *testing.T) {
	const context, code = 0x7000, 0x400100
	b := make([]byte, 0xb0)
	for n := 19; n <= 30; n++ {
		binary.LittleEndian.PutUint64(b[0x40+8*(n-19):], uint64(n))
	}
	binary.LittleEndian.PutUint64(b[0xa0:], code)
	r := remote.ReaderFunc(func(p []byte, at remote.Addr) (int, error) {
		if at < context || at >= context+0xb0 {
			return 0, &remote.ReadError{At: at, Want: len(p), Err: remote.ErrUnmapped}
		}
		return copy(p, b[at-context:]), nil
	})
	isCode := func(a remote.Addr) bool { return a == code }
	regs, ok := zend.SavedRegs(r, remote.ARM64, context, isCode)
	if !ok || regs.PC() != code || regs.SP() != context+0xb0 || regs.Arch != remote.ARM64 {
		t.Errorf("%v, %+v", ok, regs)
	}
	for n := 19; n <= 30; n++ {
		if v, known := regs.Get(n); !known || v != uint64(n) {
			t.Errorf("x%d is %d, %v", n, v, known)
		}
	}
	if _, known := regs.Get(0); known {
		t.Error("x0 is known, which a context does not have")
	}
	if _, ok := zend.SavedRegs(r, remote.ARM64, context, func(remote.Addr) bool { return false }); ok {
		t.Error("a program counter that is not in PHP's code was believed")
	}
	if _, ok := zend.SavedRegs(r, remote.ARM64, 0x9000, isCode); ok {
		t.Error("a context that can't be read was believed")
	}
}
