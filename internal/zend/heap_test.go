package zend

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// heap is sparse memory in which PHP frames are laid out by a version's table.
type heap struct {
	t    *testing.T
	l    *Layout
	mem  map[remote.Addr]byte
	next remote.Addr
}

const egAt = remote.Addr(0x10000)

func newHeap(t *testing.T, l *Layout) *heap {
	h := &heap{t: t, l: l, mem: make(map[remote.Addr]byte), next: 0x100000}
	h.alloc(0) // NULL is no memory, and neither is what follows an object
	for i := range 4096 {
		h.mem[egAt+remote.Addr(i)] = 0
	}
	return h
}

// ReadMemory implements remote.Reader.
func (h *heap) ReadMemory(p []byte, at remote.Addr) (int, error) {
	for i := range p {
		b, ok := h.mem[at+remote.Addr(i)]
		if !ok {
			return i, remote.ErrUnmapped
		}
		p[i] = b
	}
	return len(p), nil
}

func (h *heap) alloc(n uint64) remote.Addr {
	at := h.next
	for i := range n {
		h.mem[at+remote.Addr(i)] = 0
	}
	h.next += remote.Addr(n+64) &^ 15
	return at
}

func (h *heap) put(at remote.Addr, off, size, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	for i := range size {
		h.mem[at+remote.Addr(off+i)] = b[i]
	}
}

func (h *heap) ptr(at remote.Addr, off uint64, v remote.Addr) { h.put(at, off, 8, uint64(v)) }

func (h *heap) str(s string) remote.Addr {
	if h.l.PHP5 {
		at := h.alloc(uint64(len(s)) + 1)
		for i := range len(s) {
			h.mem[at+remote.Addr(i)] = s[i]
		}
		return at
	}
	at := h.alloc(h.l.StringVal + uint64(len(s)) + 1)
	h.put(at, countedType, 4, zString)
	h.put(at, h.l.StringLen, 8, uint64(len(s)))
	for i := range len(s) {
		h.mem[at+remote.Addr(h.l.StringVal)+remote.Addr(i)] = s[i]
	}
	return at
}

func (h *heap) class(name string) remote.Addr {
	at := h.alloc(h.l.ClassName + 8)
	h.ptr(at, h.l.ClassName, h.str(name))
	return at
}

// user makes a function of the given lines, one opline each.
func (h *heap) user(name, class, file string, lines ...int) remote.Addr {
	l := h.l
	at := h.alloc(l.FuncSize)
	h.put(at, l.FuncType, 1, uint64(l.TypeUser))
	if name != "" {
		h.ptr(at, l.FuncName, h.str(name))
	}
	if class != "" {
		h.ptr(at, l.FuncScope, h.class(class))
	}
	h.ptr(at, l.OpFilename, h.str(file))
	ops := h.alloc(l.OplineSize * uint64(len(lines)))
	for i, n := range lines {
		h.put(ops, uint64(i)*l.OplineSize+l.OplineLine, 4, uint64(n))
		h.put(ops, uint64(i)*l.OplineSize+l.OplineCode, 1, 60) // ZEND_DO_FCALL in every version
	}
	h.ptr(at, l.OpOpcodes, ops)
	h.put(at, l.OpLast, 4, uint64(len(lines)))
	h.put(at, l.OpLineEnd, 4, uint64(lines[len(lines)-1]))
	return at
}

// internal makes an internal function that ends where its memory does.
func (h *heap) internal(name string, handler remote.Addr) remote.Addr {
	at := h.alloc(h.l.InternalHandler + 8)
	h.put(at, h.l.FuncType, 1, uint64(h.l.TypeInternal))
	h.ptr(at, h.l.FuncName, h.str(name))
	h.ptr(at, h.l.InternalHandler, handler)
	return at
}

// call makes an execute_data that stands at opline number op.
func (h *heap) call(fn, prev remote.Addr, op uint64) remote.Addr {
	at := h.alloc(h.l.EDSize)
	h.fillCall(at, fn, prev, op)
	return at
}

func (h *heap) fillCall(at, fn, prev remote.Addr, op uint64) {
	h.ptr(at, h.l.EDFunc, fn)
	h.ptr(at, h.l.EDPrev, prev)
	if fn != 0 && h.mem[fn+remote.Addr(h.l.FuncType)] != h.l.TypeInternal {
		h.ptr(at, h.l.EDOpline, h.opline(fn, op))
	}
}

func (h *heap) opline(fn remote.Addr, op uint64) remote.Addr {
	ops, err := remote.Pointer(h, fn+remote.Addr(h.l.OpOpcodes))
	if err != nil {
		h.t.Fatal(err)
	}
	return ops + remote.Addr(op*h.l.OplineSize)
}

func (h *heap) walk(current remote.Addr) Stack {
	h.ptr(egAt, h.l.EGCurrent, current)
	return (&Thread{rt: &Runtime{Layout: h.l}, eg: egAt}).Walk(h)
}

// lines prints frames leaf first, "Class::function file:line!" with ! for Top.
func lines(frames []Frame) []string {
	out := make([]string, len(frames))
	for i := range frames {
		f := &frames[i]
		out[i] = f.Function
		if f.Class != "" {
			out[i] = f.Class + "::" + f.Function
		}
		if !f.Internal {
			out[i] += fmt.Sprintf(" %s:%d", f.File, f.Line)
		}
		if f.Top {
			out[i] += "!"
		}
	}
	return out
}

// table82 is the layout that tests of the walk itself use.
func table82(t *testing.T) *Layout {
	t.Helper()
	l, err := builtin("8.2", false, false)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestFramesAreReadByEveryVersionsTable(t *testing.T) {
	for _, version := range knownVersions() {
		if version == "5.6" {
			continue // see php5_test.go
		}
		for _, v := range []string{"nts", "zts", "nts-debug", "zts-debug"} {
			t.Run(version+"-"+v, func(t *testing.T) {
				l, err := builtin(version, strings.HasPrefix(v, "zts"), strings.HasSuffix(v, "debug"))
				if err != nil {
					t.Fatal(err)
				}
				h := newHeap(t, l)
				main := h.call(h.user("", "", "/a.php", 3, 4), 0, 1)
				h.put(main, l.EDCallInfo, 4, uint64(l.CallTop))
				sort := h.call(h.internal("usort", 0x7000), main, 0)
				cmpFn := h.call(h.user("compare", `App\Item`, "/b.php", 7, 8, 9), sort, 2)
				h.put(cmpFn, l.EDCallInfo, 4, uint64(l.CallTop))
				s := h.walk(cmpFn)
				if s.Err != nil {
					t.Fatal(s.Err)
				}
				want := []string{`App\Item::compare /b.php:9!`, "usort", "{main} /a.php:4!"}
				if d := cmp.Diff(want, lines(s.Frames)); d != "" {
					t.Error(d)
				}
				if s.Frames[1].Handler != 0x7000 || s.Frames[0].Opcode != "ZEND_DO_FCALL" {
					t.Errorf("handler %s, opcode %s", s.Frames[1].Handler, s.Frames[0].Opcode)
				}
			})
		}
	}
}

func TestFramesOutsideAFunctionsOplines(t *testing.T) {
	l := table82(t)
	thrown := func(h *heap, before func(fn remote.Addr) remote.Addr) (cur remote.Addr) {
		fn := h.user("f", "", "/a.php", 5, 6, 7)
		cur = h.call(fn, 0, 0)
		h.ptr(cur, l.EDOpline, egAt+remote.Addr(l.EGExceptionOp+l.OplineSize))
		h.ptr(egAt, l.EGBeforeException, before(fn))
		return cur
	}
	for _, tt := range []struct {
		name  string
		build func(h *heap) remote.Addr
		want  string
	}{
		{"an exception unwinds: the opline that threw", func(h *heap) remote.Addr {
			return thrown(h, func(fn remote.Addr) remote.Addr { return h.opline(fn, 1) })
		}, "f /a.php:6"},
		{"an exception unwinds and nothing tells where: the function's end", func(h *heap) remote.Addr {
			return thrown(h, func(remote.Addr) remote.Addr { return 0 })
		}, "f /a.php:7"},
		{"an exception unwinds that was thrown elsewhere: unknown", func(h *heap) remote.Addr {
			return thrown(h, func(remote.Addr) remote.Addr { return h.opline(h.user("g", "", "/b.php", 1), 0) })
		}, "f /a.php:0"},
		{"no opline yet, and an earlier exception of the same function: unknown", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 5, 6)
			h.ptr(egAt, l.EGBeforeException, h.opline(fn, 1))
			cur := h.call(fn, 0, 0)
			h.ptr(cur, l.EDOpline, 0)
			return cur
		}, "f /a.php:0"},
		{"an opline between two", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 5, 6)
			cur := h.call(fn, 0, 0)
			h.ptr(cur, l.EDOpline, h.opline(fn, 0)+8)
			return cur
		}, "f /a.php:0"},
		{"an opline behind the last", func(h *heap) remote.Addr {
			return h.call(h.user("f", "", "/a.php", 5, 6), 0, 2)
		}, "f /a.php:0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHeap(t, l)
			s := h.walk(tt.build(h))
			if s.Err != nil {
				t.Fatal(s.Err)
			}
			if d := cmp.Diff([]string{tt.want}, lines(s.Frames)); d != "" {
				t.Error(d)
			}
		})
	}
}

// generators makes a chain of n generators that delegate to each other, the
// last of which runs; it returns them and the innermost execute_data.
func generators(h *heap, n int, caller remote.Addr) (gens []remote.Addr, cur remote.Addr) {
	l := h.l
	for i := range n {
		g := h.alloc(l.GenFake + l.EDSize)
		fn := h.user(fmt.Sprint("g", i), "", "/g.php", 10+i)
		ed := h.call(fn, 0, 0)
		h.put(ed, l.EDCallInfo, 4, uint64(l.CallTop))
		h.ptr(g, l.GenExecuteData, ed)
		if i > 0 {
			h.ptr(gens[i-1], l.GenParent, g)
		}
		gens = append(gens, g)
		cur = ed
	}
	fake := gens[0] + remote.Addr(l.GenFake)
	h.ptr(fake, l.EDThis, gens[0])
	h.ptr(fake, l.EDPrev, caller)
	h.ptr(cur, l.EDPrev, fake)
	return gens, cur
}

func TestDelegatingGeneratorsAreOnTheStack(t *testing.T) {
	for _, version := range knownVersions() {
		l, err := builtin(version, false, false)
		if err != nil {
			t.Fatal(err)
		}
		if l.PHP5 {
			continue // has no "yield from"
		}
		h := newHeap(t, l)
		_, cur := generators(h, 4, h.call(h.user("", "", "/a.php", 3), 0, 0))
		s := h.walk(cur)
		if s.Err != nil {
			t.Fatal(version, s.Err)
		}
		// Only the one that runs has an execute_ex of its own.
		want := []string{"g3 /g.php:13!", "g2 /g.php:12", "g1 /g.php:11", "g0 /g.php:10", "{main} /a.php:3"}
		if d := cmp.Diff(want, lines(s.Frames)); d != "" {
			t.Error(version, d)
		}
	}
}

func TestNamesAreBounded(t *testing.T) {
	l := table82(t)
	for _, tt := range []struct {
		name, file string
		want       string
		err        error
	}{
		{"the longest name is whole", strings.Repeat("x", maxString), strings.Repeat("x", maxString), nil},
		{"a longer one is cut and says so", strings.Repeat("x", maxString+1), strings.Repeat("x", maxString) + cutMark, nil},
		{"a file name with a NUL is none", "/a\x00b.php", "", ErrLayout},
		{"no file name", "", "", ErrLayout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHeap(t, l)
			s := h.walk(h.call(h.user("f", "", tt.file, 1), 0, 0))
			if !errors.Is(s.Err, tt.err) || tt.err == nil && (s.Err != nil || s.Frames[0].File != tt.want) {
				t.Errorf("got %d frames, %v", len(s.Frames), s.Err)
			}
		})
	}
}

func TestABrokenHeapEndsTheWalkWithItsReason(t *testing.T) {
	l := table82(t)
	// Every heap begins with two good frames, of which the second calls the
	// first, and which must be kept.
	for _, tt := range []struct {
		name string
		rest func(h *heap) remote.Addr
		want error
		says string
	}{
		{"a function of an unknown type", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 1)
			h.put(fn, l.FuncType, 1, 3)
			return h.call(fn, 0, 0)
		}, ErrLayout, "type 3"},
		{"a function that is not mapped", func(h *heap) remote.Addr {
			at := h.call(0, 0, 0)
			h.ptr(at, l.EDFunc, 0x4000)
			return at
		}, ErrWild, "function at 0x4000"},
		{"a crooked function", func(h *heap) remote.Addr {
			at := h.call(0, 0, 0)
			h.ptr(at, l.EDFunc, h.user("f", "", "/a.php", 1)+4)
			return at
		}, ErrWild, "function at"},
		{"a user function that is cut short", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 1)
			for i := l.OpFilename; i < l.FuncSize; i++ {
				delete(h.mem, fn+remote.Addr(i))
			}
			return h.call(fn, 0, 0)
		}, ErrWild, "function f"},
		{"a name of absurd length", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 1)
			name := h.alloc(64)
			h.put(name, countedType, 4, zString)
			h.put(name, l.StringLen, 8, 1<<40)
			h.ptr(fn, l.FuncName, name)
			return h.call(fn, 0, 0)
		}, ErrLayout, "1099511627776 bytes"},
		{"a name that was freed", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 1)
			name := h.str("f")
			h.put(name, 0, 8, 0x7f16_3420_5678) // the next free one
			h.ptr(fn, l.FuncName, name)
			return h.call(fn, 0, 0)
		}, ErrLayout, "no string"},
		{"a file name that was freed last", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 1)
			name := h.str("/a.php")
			h.put(name, 0, 8, 0) // no next free one
			h.ptr(fn, l.OpFilename, name)
			return h.call(fn, 0, 0)
		}, ErrLayout, "no string"},
		{"a name that is a piece of the heap", func(h *heap) remote.Addr {
			return h.call(h.user("f\x00\x01secret", "", "/a.php", 1), 0, 0)
		}, ErrLayout, "control bytes"},
		{"a class name that is a piece of the heap", func(h *heap) remote.Addr {
			return h.call(h.user("f", "C\x01secret", "/a.php", 1), 0, 0)
		}, ErrLayout, "control bytes"},
		{"a name that is not mapped", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 1)
			h.ptr(fn, l.FuncName, 0x8000)
			return h.call(fn, 0, 0)
		}, remote.ErrUnmapped, "function's name"},
		{"a class without a name", func(h *heap) remote.Addr {
			fn := h.user("f", "C", "/a.php", 1)
			h.ptr(fn, l.FuncScope, h.alloc(64))
			return h.call(fn, 0, 0)
		}, ErrLayout, "class of f"},
		{"more oplines than any function has", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 1)
			h.put(fn, l.OpLast, 4, maxOplines+1)
			return h.call(fn, 0, 0)
		}, ErrLayout, "oplines"},
		{"deeper than the limit", func(h *heap) remote.Addr {
			fn := h.user("f", "", "/a.php", 1)
			at := remote.Addr(0)
			for range MaxFrames {
				at = h.call(fn, at, 0)
			}
			return at
		}, ErrDepth, "2048"},
		{"endless placeholders", func(h *heap) remote.Addr {
			at := remote.Addr(0)
			for range maxLinks {
				at = h.call(0, at, 0)
			}
			return at
		}, ErrDepth, "2048"},
		{"a generator that delegates to itself", func(h *heap) remote.Addr {
			gens, cur := generators(h, 3, 0)
			h.ptr(gens[2], l.GenParent, gens[0])
			return cur
		}, nil, "1024 generators"},
		{"a generator whose parent is not mapped", func(h *heap) remote.Addr {
			gens, cur := generators(h, 3, 0)
			h.ptr(gens[1], l.GenParent, 0x4000)
			return cur
		}, ErrWild, "generator"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHeap(t, l)
			rest := tt.rest(h)
			good := h.user("good", "", "/good.php", 1)
			cur := h.call(good, h.call(good, rest, 0), 0)
			s := h.walk(cur)
			if s.Err == nil || tt.want != nil && !errors.Is(s.Err, tt.want) || !strings.Contains(s.Err.Error(), tt.says) {
				t.Errorf("got %v, want %v, %q", s.Err, tt.want, tt.says)
			}
			if len(s.Frames) < 2 || s.Frames[1].Function != "good" {
				t.Errorf("%d frames were kept", len(s.Frames))
			}
			(&Thread{rt: &Runtime{Layout: l}, eg: egAt}).Prefetch(h) // must end, too
		})
	}
}

func TestEveryTableAgreesWithPublishedOffsets(t *testing.T) {
	// phpspy and the OpenTelemetry profiler have found these independently.
	for version, want := range map[string][4]uint64{
		"7.0": {480, 56, 120, 128}, "7.1": {480, 48, 120, 128}, "7.2": {480, 48, 120, 128}, "7.3": {488, 48, 128, 136},
		"7.4": {488, 48, 136, 144}, "8.0": {488, 48, 144, 152}, "8.1": {488, 48, 144, 152}, "8.2": {488, 48, 152, 160},
		"8.3": {488, 48, 144, 152}, "8.4": {488, 48, 168, 176}, "8.5": {512, 48, 168, 176},
	} {
		l, err := builtin(version, false, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := [4]uint64{l.EGCurrent, l.EDPrev, l.OpFilename, l.OpLineStart}; got != want {
			t.Errorf("%s: EG.current_execute_data, prev_execute_data, filename, line_start are %v, want %v", version, got, want)
		}
		top := uint32(1 << 17)
		if version == "7.0" {
			top = 1 << 25
		}
		if l.CallTop != top || l.OplineLine != 24 || l.OplineCode != 28 || l.OplineSize != 32 || l.EDFunc != 24 || l.StringVal != 24 {
			t.Errorf("%s: %+v", version, l)
		}
	}
	if got := len(knownVersions()); got != 12 {
		t.Errorf("%d versions are known", got)
	}
}

func TestAgreedOpcodesAreThoseOfAllTables(t *testing.T) {
	l, err := agreed("8.9")
	if err != nil {
		t.Fatal(err)
	}
	if l.Opcode(60) != "ZEND_DO_FCALL" || l.Opcode(73) != "ZEND_INCLUDE_OR_EVAL" || l.CallTop != 1<<17 {
		t.Errorf("%+v", l)
	}
	for _, v := range []string{"9.0", "x", ""} {
		if _, err := agreed(v); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%q: %v", v, err)
		}
	}
}

// restless is memory that changes each time it is read.
type restless struct {
	*heap
	at     remote.Addr
	values []remote.Addr
	reads  int
}

func (r *restless) ReadMemory(p []byte, at remote.Addr) (int, error) {
	r.ptr(r.at, 0, r.values[r.reads%len(r.values)])
	r.reads++
	return r.heap.ReadMemory(p, at)
}

func TestAStackThatNeverHoldsStillIsNotShown(t *testing.T) {
	l := table82(t)
	h := newHeap(t, l)
	main := h.call(h.user("main", "", "/a.php", 1), 0, 0)
	h.put(main, l.EDCallInfo, 4, uint64(l.CallTop))
	a, b := h.call(h.user("a", "", "/a.php", 2), main, 0), h.call(h.user("b", "", "/a.php", 3), main, 0)
	th := &Thread{rt: &Runtime{Layout: l}, eg: egAt}
	for _, tt := range []struct {
		name   string
		values []remote.Addr
		frames int
		torn   int
	}{
		{"still", []remote.Addr{a}, 2, 0},
		{"restless", []remote.Addr{a, b}, 0, 20},
		{"calls and returns", []remote.Addr{a, main, b}, 0, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &restless{heap: h, at: egAt + remote.Addr(l.EGCurrent), values: tt.values}
			s, torn := th.Sample(r, 20)
			if torn != tt.torn || len(s.Frames) != tt.frames || errors.Is(s.Err, ErrTorn) != (tt.torn > 0) {
				t.Errorf("%d frames, torn %d times, %v", len(s.Frames), torn, s.Err)
			}
		})
	}
}

// TestACallInTheMakingIsNoStack has a frame that was pushed and not yet run:
// nothing calls it, and it does not say that C code does.
func TestACallInTheMakingIsNoStack(t *testing.T) {
	l := table82(t)
	h := newHeap(t, l)
	cur := h.call(h.user("pending", "", "/a.php", 1), 0, 0)
	h.ptr(egAt, l.EGCurrent, cur)
	th := &Thread{rt: &Runtime{Layout: l}, eg: egAt}
	if s, torn := th.Sample(h, 3); !errors.Is(s.Err, ErrTorn) || torn != 3 || len(s.Frames) != 0 {
		t.Errorf("%+v, torn %d times", s, torn)
	}
	if d, err := th.Depth(h); err == nil || d.Exact {
		t.Errorf("%+v, %v", d, err)
	}
}
