package symbolize

import (
	"debug/elf"
	"encoding/binary"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// CallsHost reports whether the call behind which pc is a return address is
// certain to be one of a host: by name, or through a pointer that holds its
// address. A host's frame is known that way even where part of its code has no
// symbol.
func (img *Image) CallsHost(pc remote.Addr) bool {
	img.mu.Lock()
	known, ok := img.hosted[pc]
	hosts := img.hosts
	img.mu.Unlock()
	if ok {
		return known
	}
	for _, h := range hosts {
		known = known || img.target(pc) == h.entry
	}
	img.mu.Lock()
	if len(img.hosted) < maxCached {
		img.hosted[pc] = known
	}
	img.mu.Unlock()
	return known
}

// target is the function that the call before pc calls, 0 when that is not
// certain.
func (img *Image) target(pc remote.Addr) remote.Addr {
	m, bias, c, ok := img.call(pc)
	if !ok {
		return 0
	}
	switch c.how {
	case direct:
		stub, ok := m.symbolAt(c.at, 0)
		if name, of := strings.CutSuffix(stub.Name, "@plt"); ok && of {
			return img.hostNamed(name) // of another module's functions only those matter
		}
		return remote.Addr(c.at + bias)
	case throughMemory:
		if to, err := remote.Pointer(img.mem, remote.Addr(c.at+bias)); err == nil {
			return to
		}
	}
	return 0
}

// hostNamed finds a host by its name, 0 when there is none.
func (img *Image) hostNamed(name string) remote.Addr {
	img.mu.Lock()
	hosts := img.hosts
	img.mu.Unlock()
	for _, h := range hosts {
		p := img.find(h.entry)
		if s, ok := p.mod.Symbol(name); ok && s.Value+p.bias == uint64(h.entry) {
			return h.entry
		}
	}
	return 0
}

// calls reports whether pc is a return address: right behind a call, which for
// a known target (0: any) is to that or through a pointer.
func (img *Image) calls(pc, target remote.Addr) bool {
	_, _, c, ok := img.call(pc)
	if !ok || target == 0 || c.how == computed { // a register may have held anything
		return ok
	}
	return img.target(pc) == target
}

// call decodes the call instruction before pc.
func (img *Image) call(pc remote.Addr) (m *Module, bias uint64, c call, ok bool) {
	p := img.find(pc)
	if p == nil || pc < p.code.Start+callMax {
		return nil, 0, call{}, false
	}
	m, err := img.load(p)
	if err != nil {
		return nil, 0, call{}, false
	}
	at := uint64(pc) - p.bias
	var b [callMax]byte
	if m.file.ReadAddr(b[:], at-callMax) != nil {
		return nil, 0, call{}, false
	}
	if m.file.Machine() == elf.EM_AARCH64 {
		c, ok = callBeforeARM64(b[:], at)
		return m, p.bias, c, ok
	}
	if c, ok = callBefore(b[:], at); !ok || c.how != computed {
		return m, p.bias, c, ok
	}
	var more [leadMax]byte
	if m.file.ReadAddr(more[:], at-leadMax) == nil {
		if through, ok := pointerBefore(more[:], at); ok {
			c = call{throughMemory, through}
		}
	}
	return m, p.bias, c, true
}

// leadMax is how much of the code before a call may prepare it, in bytes.
const leadMax = 48

// pointerBefore recognises a call through a pointer whose address was loaded
// just before, "lea x(%rip),%rax; …; call *(%rax)", and returns that address.
// Where the first instruction begins is unknown, so each start that ends with
// the call is tried.
func pointerBefore(b []byte, end uint64) (uint64, bool) {
	for skip := range 16 {
		leas := make(map[x86asm.Reg]uint64)
		for off := skip; off < len(b); {
			in, err := x86asm.Decode(b[off:], 64)
			if err != nil || in.Len == 0 {
				break
			}
			off += in.Len
			dst, _ := in.Args[0].(x86asm.Reg)
			mem, isMem := in.Args[1].(x86asm.Mem)
			switch {
			case in.Op == x86asm.CALL && off == len(b):
				if a, ok := in.Args[0].(x86asm.Mem); ok && a.Index == 0 && a.Disp == 0 {
					if at, ok := leas[a.Base]; ok {
						return at, true
					}
				}
			case in.Op == x86asm.CALL, in.Op == x86asm.JMP, in.Op == x86asm.RET:
				clear(leas)
			case in.Op == x86asm.LEA && isMem && mem.Base == x86asm.RIP:
				leas[dst] = end - uint64(len(b)-off) + uint64(mem.Disp)
			default:
				delete(leas, dst)
			}
		}
	}
	return 0, false
}

// callMax is the length of the longest call instruction without prefixes.
const callMax = 7

type callKind uint8

const (
	direct        callKind = iota // of the function at a fixed address
	throughMemory                 // through a pointer at a fixed address
	computed                      // through a register, or a pointer that one leads to
)

// call is a call instruction.
type call struct {
	how callKind
	at  uint64 // of the function, or of the pointer to it
}

// callBefore looks for a call instruction that ends where b does, at the
// link-time address end.
func callBefore(b []byte, end uint64) (call, bool) {
	if n := len(b); n >= 5 && b[n-5] == 0xe8 {
		rel := int32(binary.LittleEndian.Uint32(b[n-4:]))
		return call{direct, end + uint64(int64(rel))}, true
	}
	for n := 2; n <= min(callMax, len(b)); n++ {
		code := b[len(b)-n:]
		in, err := x86asm.Decode(code, 64)
		if err != nil || in.Len != n || in.Op != x86asm.CALL {
			continue
		}
		if a, ok := in.Args[0].(x86asm.Mem); ok && a.Base == x86asm.RIP {
			return call{throughMemory, end + uint64(a.Disp)}, true
		}
		return call{how: computed}, true
	}
	return call{}, false
}
