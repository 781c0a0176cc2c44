package zend

import (
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// -fcf-protection begins each function with endbr64.
func TestALandingPadIsPassed(t *testing.T) {
	plain := []byte{0xb8, 0x34, 0x12, 0, 0, 0xc3} // mov $0x1234,%eax; ret
	for name, code := range map[string][]byte{
		"without": plain,
		"with":    append([]byte{0xf3, 0x0f, 0x1e, 0xfa}, plain...),
	} {
		m := newMachine(nil, nil)
		m.follow(code, 0x1000)
		if v := m.get(x86asm.RAX); v.kind != constant || v.n != 0x1234 {
			t.Errorf("%s: rax is %+v", name, v)
		}
	}
}

// zend_attribute in Zend/zend_attributes.h; 8.0's and 8.5's were also read off the
// machine code of releases.
func TestWhereAnAttributesParameterIs(t *testing.T) {
	for version, want := range map[string]uint64{"7.4": 0, "8.0": 24, "8.1": 24, "8.4": 24, "8.5": 32, "8.6": 0} {
		var l ValueLayout
		if l.setVersion(version); l.AttrParameter != want {
			t.Errorf("%s: %d, want %d", version, l.AttrParameter, want)
		}
	}
}
