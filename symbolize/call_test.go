package symbolize

import "testing"

func TestCallsAreRecognisedByTheBytesBeforeTheirReturnAddress(t *testing.T) {
	for _, tt := range []struct {
		name string
		code []byte
		want call
		ok   bool
	}{
		{"call rel32", []byte{0x90, 0x90, 0xe8, 0xf0, 0x00, 0x00, 0x00}, call{direct, 0x10f0}, true},
		{"call rel32, backwards", []byte{0x90, 0x90, 0xe8, 0xf0, 0xff, 0xff, 0xff}, call{direct, 0x0ff0}, true},
		{"call *rax", []byte{0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0}, call{how: computed}, true},
		{"call *r12", []byte{0x90, 0x90, 0x90, 0x90, 0x41, 0xff, 0xd4}, call{how: computed}, true},
		{"call *x(rip)", []byte{0x90, 0xff, 0x15, 0x00, 0x01, 0x00, 0x00}, call{throughMemory, 0x1100}, true},
		{"call *8(rax)", []byte{0x90, 0x90, 0x90, 0x90, 0xff, 0x50, 0x08}, call{how: computed}, true},
		{"call *(rax+rcx*8)", []byte{0x90, 0x90, 0x90, 0x90, 0xff, 0x14, 0xc8}, call{how: computed}, true},
		{"jmp rel32", []byte{0x90, 0x90, 0xe9, 0xf0, 0x00, 0x00, 0x00}, call{}, false},
		{"jmp *rax", []byte{0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0}, call{}, false},
		{"nops", []byte{0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90}, call{}, false},
		{"a push", []byte{0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x55}, call{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := callBefore(tt.code, 0x1000); got != tt.want || ok != tt.ok {
				t.Errorf("got %+v, %v; want %+v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestArm64CallsAreRecognisedByTheInstructionBeforeTheirReturnAddress(t *testing.T) {
	for _, tt := range []struct {
		name string
		code []byte
		want call
		ok   bool
	}{
		{"bl", []byte{0x04, 0x00, 0x00, 0x94}, call{direct, 0x100c}, true},
		{"bl, backwards", []byte{0xff, 0xff, 0xff, 0x97}, call{direct, 0x0ff8}, true},
		{"blr x8", []byte{0x00, 0x01, 0x3f, 0xd6}, call{how: computed}, true},
		{"blraa x8, x9", []byte{0x09, 0x09, 0x3f, 0xd7}, call{how: computed}, true},
		{"blraaz x8", []byte{0x1f, 0x09, 0x3f, 0xd6}, call{how: computed}, true},
		{"b", []byte{0x04, 0x00, 0x00, 0x14}, call{}, false},
		{"br x8", []byte{0x00, 0x01, 0x1f, 0xd6}, call{}, false},
		{"ret", []byte{0xc0, 0x03, 0x5f, 0xd6}, call{}, false},
		{"too short", []byte{0x00, 0x94}, call{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := callBeforeARM64(tt.code, 0x1000); got != tt.want || ok != tt.ok {
				t.Errorf("got %+v, %v; want %+v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
	if _, ok := callBeforeARM64([]byte{0x04, 0x00, 0x00, 0x94}, 0x1002); ok {
		t.Error("a return address between two instructions")
	}
}
