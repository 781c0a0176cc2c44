package perf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

const descSize = 20

// entry is a list's entry as a program writes it.
func entry(tag uint64, at uint64, body []byte) []byte {
	flags := tag<<tidShift | 7
	if body != nil {
		flags |= withDesc
	}
	var b []byte
	for _, w := range []uint64{at, at + 1, at + 2, flags, at + 3} {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	if body != nil {
		b = append(b, body...)
		b = append(b, make([]byte, int(descRoom(descSize))-len(body))...)
	}
	return b
}

func listOf(tag, kind, status uint64, entries ...[]byte) []byte {
	rest := bytes.Join(entries, nil)
	var b []byte
	for _, w := range []uint64{tag<<tidShift | kind, 1, 2, status, headBytes + uint64(len(rest))} {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return append(b, rest...)
}

// body is a sample as the kernel writes it.
func body(list []byte, abi uint64, stack []byte, used uint64) []byte {
	var b []byte
	b = binary.LittleEndian.AppendUint32(b, 42)
	b = binary.LittleEndian.AppendUint32(b, 43)
	b = binary.LittleEndian.AppendUint64(b, 99)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(list)+4))
	b = append(b, list...)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, abi)
	if abi != 0 {
		for i := range userRegs {
			b = binary.LittleEndian.AppendUint64(b, uint64(100+i))
		}
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(len(stack)))
	if len(stack) > 0 {
		b = append(b, stack...)
		b = binary.LittleEndian.AppendUint64(b, used)
	}
	return b
}

func TestSampleIsReadAsTheKernelWritesIt(t *testing.T) {
	fn := bytes.Repeat([]byte{9}, descSize)
	var s Sample
	err := s.decode(body(listOf(5, 3, statusWhole, entry(5, 1000, fn), entry(5, 2000, nil)), abi64, make([]byte, 64), 24), descSize)
	if err != nil {
		t.Fatal(err)
	}
	if s.PID != 42 || s.TID != 43 || s.At != 99 || s.Point != 3 || len(s.Stack) != 24 {
		t.Errorf("%+v", s)
	}
	for reg, want := range map[int]uint64{remote.RAX: 100, remote.RBX: 101, remote.RSP: 107, remote.RIP: 108, remote.R8: 110, remote.R15: 117} {
		if v, ok := s.Regs.Get(reg); !ok || v != want {
			t.Errorf("register %d is %d, want %d", reg, v, want)
		}
	}
	l := s.List
	if l.First != 1 || l.Extra != 2 || l.Short != nil || len(l.Nodes) != 2 {
		t.Fatalf("%+v", l)
	}
	if n := l.Nodes[0]; n.At != 1000 || n.A != 1001 || n.Desc != 1002 || n.B != 1003 || n.Flags != 7 || !bytes.Equal(n.Body, fn) {
		t.Errorf("%+v", n)
	}
	if n := l.Nodes[1]; n.At != 2000 || n.Body != nil {
		t.Errorf("%+v", n)
	}
}

func TestListSaysWhyItIsShort(t *testing.T) {
	for _, tt := range []struct {
		name string
		list []byte
		want error
	}{
		{"whole", listOf(5, 0, statusWhole, entry(5, 8, nil)), nil},
		{"memory that can't be read", listOf(5, 0, statusFault, entry(5, 8, nil)), ErrFault},
		{"too long", listOf(5, 0, statusLong, entry(5, 8, nil)), ErrLong},
		{"an unknown thread", listOf(5, 0, statusNone), ErrNoHead},
		{"another thread's entry in it", listOf(5, 0, statusWhole, entry(5, 8, nil), entry(6, 9, nil)), ErrTorn},
		{"another thread's header", listOf(6, 0, statusWhole, entry(5, 8, nil)), ErrTorn},
	} {
		var s Sample
		if err := s.decode(body(tt.list, abi64, nil, 0), descSize); err != nil || !errors.Is(s.List.Short, tt.want) {
			t.Errorf("%s: %v, %v", tt.name, s.List.Short, err)
		}
	}
}

func TestMalformedSamplesAreRefused(t *testing.T) {
	whole := body(listOf(5, 0, statusWhole, entry(5, 8, nil)), abi64, make([]byte, 16), 16)
	var s Sample
	if err := s.decode(whole, descSize); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := s.decode(whole[:n], descSize); !errors.Is(err, ErrMalformed) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for name, b := range map[string][]byte{
		"no registers":              body(listOf(5, 0, statusWhole), 0, nil, 0),
		"a 32-bit thread":           body(listOf(5, 0, statusWhole), 1, nil, 0),
		"more stack than was asked": body(listOf(5, 0, statusWhole), abi64, make([]byte, 16), 17),
		"an entry cut off":          body(listOf(5, 0, statusWhole, entry(5, 8, nil)[:30]), abi64, nil, 0),
	} {
		if err := s.decode(b, descSize); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func record16(kind uint32, size int, fill byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint16(b, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(size))
	return append(b, bytes.Repeat([]byte{fill}, size-headerBytes)...)
}

func TestRecordsGoAroundTheEnd(t *testing.T) {
	const room = 256
	ring, scratch := make([]byte, room), []byte(nil)
	var head, tail uint64
	for i := range 100 {
		size := 8 * (1 + i%12)
		if size < 2*headerBytes {
			size = 2 * headerBytes
		}
		for j, c := range record16(uint32(i), size, byte(i)) {
			ring[(head+uint64(j))%room] = c
		}
		head += uint64(size)
		kind, b, n, err := record(ring, &scratch, tail, head)
		if err != nil || kind != uint32(i) || int(n) != size || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, size-headerBytes)) {
			t.Fatalf("record %d: kind %d, %d bytes, %v: %v", i, kind, n, b, err)
		}
		tail += n
	}
}

// FuzzRecord: no bytes of a ring make a record that lies outside of it, and a
// sample never has more stack or nodes than bytes.
func FuzzRecord(f *testing.F) {
	sample := body(listOf(5, 0, statusWhole, entry(5, 8, bytes.Repeat([]byte{1}, descSize)), entry(5, 9, nil)), abi64, make([]byte, 32), 32)
	one := append(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint32(nil, recordSample), 2), uint16(len(sample)+headerBytes)), sample...)
	f.Add(one, uint64(0), uint64(len(one)))
	f.Add(one, uint64(len(one)-64), uint64(2*len(one)-64))
	f.Add(record16(recordLost, 32, 1), uint64(0), uint64(32))
	f.Fuzz(func(t *testing.T, ring []byte, tail, head uint64) {
		if len(ring) == 0 {
			return
		}
		var scratch []byte
		var s Sample
		for range 64 {
			kind, b, n, err := record(ring, &scratch, tail, head)
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatal(err)
				}
				return
			}
			if n < headerBytes || uint64(len(b)) != n-headerBytes || n > head-tail || len(b) > len(ring) {
				t.Fatalf("%d bytes of a record of %d, %d left", len(b), n, head-tail)
			}
			tail += n
			if kind != recordSample {
				continue
			}
			if err := s.decode(b, descSize); err != nil && !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			if len(s.Stack) > len(b) || len(s.List.Nodes)*entryBytes > len(b) {
				t.Fatalf("%d bytes of stack, %d nodes out of %d bytes", len(s.Stack), len(s.List.Nodes), len(b))
			}
		}
	})
}
