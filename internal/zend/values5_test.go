package zend

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

// table5 is the part of 5.6's layout that values need.
func table5() *Layout {
	l := &Layout{Version: "5.6.31", EDSize: 136, EDPrev: 48, FuncSize: 248, FuncFlags: 24, InternalHandler: 56, ClassName: 8}
	l.TypeInternal, l.TypeUser, l.TypeEval = 1, 2, 4
	l.fillValues(map[string]Struct{
		"_zend_execute_data": {Members: Members{"function_state.function": {8, 8}, "function_state.arguments": {16, 8}, "op_array": {24, 8}, "object": {32, 8}}},
		"_zend_op_array":     {Members: Members{"num_args": {40, 4}, "arg_info": {48, 8}, "vars": {80, 8}, "last_var": {88, 4}}},
		"_zend_object":       {Members: Members{"ce": {0, 8}}}, "_zend_executor_globals": {Members: Members{"objects_store": {928, 24}}},
	})
	return l
}

func (h *heap) cstring(s string) remote.Addr {
	at := h.alloc(uint64(len(s)) + 1)
	for i := range len(s) {
		h.mem[at+remote.Addr(i)] = s[i]
	}
	return at
}

// names5 makes what vars or arg_info point to.
func (h *heap) names5(size uint64, names ...string) remote.Addr {
	at := h.alloc(size * uint64(len(names)))
	for i, n := range names {
		h.ptr(at, uint64(i)*size, h.cstring(n))
		h.put(at, uint64(i)*size+8, 4, uint64(len(n)))
	}
	return at
}

func (h *heap) function5(kind uint8, flags uint64, params int, names ...string) remote.Addr {
	at := h.alloc(h.l.FuncSize)
	h.put(at, 0, 1, uint64(kind))
	h.put(at, h.l.FuncFlags, 4, flags)
	h.put(at, 40, 4, uint64(params))
	if kind == h.l.TypeInternal {
		h.ptr(at, 48, h.names5(argInfo5Size, names...))
		return at
	}
	h.ptr(at, 80, h.names5(compiledSize, names...))
	h.put(at, 88, 4, uint64(len(names)))
	return at
}

// zval5 makes a zval and returns its address.
func (h *heap) zval5(typ uint8, value, more uint64) remote.Addr {
	at := h.alloc(zval5Size)
	h.put(at, 0, 8, value)
	h.put(at, 8, 8, more)
	h.put(at, 16, 4, 1)
	h.put(at, zval5Type, 1, uint64(typ))
	return at
}

func (h *heap) string5(s string) remote.Addr {
	return h.zval5(z5String, uint64(h.cstring(s)), uint64(len(s)))
}

// stacked puts arguments on the argument stack and returns its top.
func (h *heap) stacked(zvals ...remote.Addr) remote.Addr {
	at := h.alloc(8 * uint64(len(zvals)+1))
	for i, z := range zvals {
		h.ptr(at, 8*uint64(i), z)
	}
	h.put(at, 8*uint64(len(zvals)), 8, uint64(len(zvals)))
	return at + remote.Addr(8*len(zvals))
}

// call5v makes an execute_data with its compiled variables; 0 is one that its
// code has not come upon.
func (h *heap) call5v(code, prev remote.Addr, zvals ...remote.Addr) remote.Addr {
	at := h.alloc(h.l.EDSize + 8*uint64(len(zvals)))
	h.ptr(at, 24, code)
	h.ptr(at, h.l.EDPrev, prev)
	for i, z := range zvals {
		if z != 0 {
			p := h.alloc(8)
			h.ptr(p, 0, z)
			h.ptr(at, h.l.EDSize+8*uint64(i), p)
		}
	}
	return at
}

// php5 lays out a script that calls a method, which calls an internal function.
func php5(t *testing.T) (h *heap, frames []Frame) {
	h = newHeap(t, table5())
	l := h.l
	ce := h.alloc(16)
	h.ptr(ce, l.ClassName, h.cstring("Shop"))
	object := h.alloc(32)
	h.ptr(object, 0, ce)
	buckets := h.alloc(8 * objectBucket)
	h.ptr(buckets, 3*objectBucket+objectAt, object)
	h.ptr(egAt, l.Values.EGObjects, buckets)
	table := h.alloc(72)
	h.put(table, hashCount, 4, 12)

	method := h.function5(l.TypeUser, 0, 2, "id", "dbPassword", "list", "f", "later", "yes", "fp", "none", "text", "const")
	internal := h.function5(l.TypeInternal, 1<<24, 2, "stream", "more")
	script := h.function5(l.TypeUser, 0, 0, "shop")
	this := h.zval5(z5Object, 3, 0)
	main := h.call5v(script, 0, this)
	h.ptr(main, l.Values.EDCalled, method)
	h.ptr(main, l.Values.EDObject, this)
	h.ptr(main, l.Values.EDArguments, h.stacked(h.zval5(z5Long, 7, 0), h.string5("hunter two"), h.zval5(z5Double, math.Float64bits(2.5), 0)))
	inside := h.call5v(method, main, h.zval5(z5Long, 1<<64-7, 0), h.string5("hunter two"), h.zval5(z5Array, uint64(table), 0),
		h.zval5(z5Double, math.Float64bits(1e20), 0), 0, h.zval5(z5Bool, 1, 0), h.zval5(z5Resource, 9, 0), h.zval5(z5Null, 0, 0),
		h.string5("a\n\x00b"), h.zval5(z5ConstantAST|0x10, 0, 0))
	h.ptr(inside, l.Values.EDCalled, internal)
	h.ptr(inside, l.Values.EDArguments, h.stacked(h.zval5(z5Resource, 9, 0), h.zval5(z5Long, 1, 0), h.string5("x")))
	return h, []Frame{{ExecuteData: inside, Func: internal, Internal: true}, {ExecuteData: inside, Func: method}, {ExecuteData: main, Func: script}}
}

func TestPHP5Values(t *testing.T) {
	h, frames := php5(t)
	th := &Thread{rt: &Runtime{Layout: h.l}, eg: egAt}
	vs, err := th.Values(h, frames, Want{All: true})
	if err != nil {
		t.Fatal(err)
	}
	var got [][]string
	for _, f := range vs {
		var lines []string
		for _, v := range f {
			lines = append(lines, fmt.Sprintf("%s %s %s %s", v.Name, v.Kind, v.Type, v.Text))
		}
		got = append(got, lines)
	}
	want := [][]string{
		{"$stream argument resource resource(9)", "$more[0] argument int 1", `$more[1] argument string "x"`},
		{"$this this object object(Shop)#3", "$id argument int -7", "$dbPassword argument string [redacted]", "#3 argument float 2.5",
			"$list variable array array(12)", "$f variable float 1.0E+20", "$later variable undef undefined", "$yes variable bool true",
			"$fp variable resource resource(9)", "$none variable null null", `$text variable string "a\n\x00b"`, "$const variable constant constant expression"},
		{"$shop variable object object(Shop)#3"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestPHP5ValuesSurviveDamage changes one word of the memory after another.
func TestPHP5ValuesSurviveDamage(t *testing.T) {
	h, frames := php5(t)
	th := &Thread{rt: &Runtime{Layout: h.l}, eg: egAt}
	for at := remote.Addr(0x100000); at < h.next; at += 8 {
		for _, v := range []uint64{0, 1, 0xdead0000, 1<<64 - 1, 1<<64 - 8, uint64(at), 0x7fffffff, 0x0505050505050505} {
			r := remote.ReaderFunc(func(p []byte, from remote.Addr) (int, error) {
				n, err := h.ReadMemory(p, from)
				for i := range n {
					if off, ok := (from + remote.Addr(i)).Distance(at); ok && off < 8 {
						p[i] = byte(v >> (8 * off))
					}
				}
				return n, err
			})
			vs, err := th.Values(r, frames, Want{All: true})
			if err != nil || len(vs) != len(frames) {
				t.Fatalf("%s = %#x: %v", at, v, err)
			}
			for _, f := range vs {
				if len(f) > maxFrameValues+2 {
					t.Fatalf("%s = %#x: %d values", at, v, len(f))
				}
				for _, got := range f {
					if len(got.Text) > 4*maxVariable+64 {
						t.Fatalf("%s = %#x: %+v", at, v, got)
					}
				}
			}
		}
	}
}
