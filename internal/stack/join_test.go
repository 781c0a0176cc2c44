package stack

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func native(name string) NativeFrame { return NativeFrame{Frame: Frame{Function: name}} }

func inlined(name string) NativeFrame {
	return NativeFrame{Frame: Frame{Function: name, Inlined: true}}
}

func at(name string, entry remote.Addr) NativeFrame {
	return NativeFrame{Frame: Frame{Function: name, PC: entry + 5}, Entry: entry}
}

func user(name string, line int) PHPFrame {
	return PHPFrame{Frame: Frame{Function: name, Line: line}}
}

func top(name string, line int) PHPFrame { f := user(name, line); f.Top = true; return f }

func internal(name string, handler remote.Addr) PHPFrame {
	return PHPFrame{Frame: Frame{Function: name, Internal: true}, Handler: handler}
}

// text is a joined stack as words: native names plain, PHP ones with their line.
func text(s Stack) string {
	var w []string
	for _, f := range s.Frames {
		name := f.QualifiedName()
		if f.Kind == PHP {
			name = fmt.Sprintf("%s:%d", name, f.Line)
		}
		w = append(w, name)
	}
	return strings.Join(w, " ")
}

func TestJoinPlacesPHPFramesBehindTheirExecutor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		native []NativeFrame
		php    []PHPFrame
		end    End
		want   string
		err    string
	}{
		{
			name:   "user functions share one execute_ex",
			native: []NativeFrame{native("mremap"), inlined("ZEND_ASSIGN_OP_SPEC_CV_CONST_HANDLER"), native("execute_ex"), native("main")},
			php:    []PHPFrame{user("f", 6), top("{main}", 9)},
			want:   "mremap ZEND_ASSIGN_OP_SPEC_CV_CONST_HANDLER execute_ex f:6 {main}:9 main",
		},
		{
			name:   "a callback runs in an execute_ex of its own, behind its internal caller",
			native: []NativeFrame{native("execute_ex"), native("zend_call_function"), at("zif_usort", 0x100), native("execute_ex"), native("main")},
			php:    []PHPFrame{top("{closure}", 3), internal("usort", 0x100), top("{main}", 5)},
			want:   "execute_ex {closure}:3 zend_call_function zif_usort usort:0 execute_ex {main}:5 main",
		},
		{
			name:   "an extension's executor between two execute_ex changes nothing",
			native: []NativeFrame{native("execute_ex"), native(""), native("execute_ex"), native("")},
			php:    []PHPFrame{top("f", 2), top("{main}", 4)},
			want:   "execute_ex f:2 ?? execute_ex {main}:4 ??",
		},
		{
			name:   "a handler without a symbol gets the name that the engine has for it",
			native: []NativeFrame{native("poll"), at("", 0x200), native("execute_ex")},
			php:    []PHPFrame{internal("stream_select", 0x200), top("{main}", 7)},
			want:   "poll zif_stream_select stream_select:0 execute_ex {main}:7",
		},
		{
			name:   "an internal function without a native frame stays with its caller",
			native: []NativeFrame{native("nanosleep"), native("execute_ex")},
			php:    []PHPFrame{internal("sleep", 0x300), top("{main}", 2)},
			want:   "nanosleep execute_ex sleep:0 {main}:2",
		},
		{
			name:   "executors without PHP frames are named as a disagreement",
			native: []NativeFrame{native("execute_ex"), native("execute_ex")},
			php:    []PHPFrame{top("{main}", 2)},
			want:   "execute_ex {main}:2 execute_ex",
			err:    "1 native frames of execute_ex run no PHP frame",
		},
		{
			name:   "PHP frames without an executor are kept and named",
			native: []NativeFrame{native("read"), native("main")},
			php:    []PHPFrame{user("f", 1), top("{main}", 2)},
			want:   "read main f:1 {main}:2",
			err:    "2 PHP frames have no native frame",
		},
		{
			name:   "a truncated native stack keeps the PHP frames it did not reach",
			native: []NativeFrame{native("mremap"), native("")},
			php:    []PHPFrame{user("f", 1), top("{main}", 2)},
			end:    Truncated,
			want:   "mremap ?? f:1 {main}:2",
			err:    "the line of f may be one it has left since",
		},
		{
			name:   "an inlined function called execute_ex runs nothing",
			native: []NativeFrame{inlined("execute_ex"), native("execute_ex")},
			php:    []PHPFrame{top("{main}", 2)},
			want:   "execute_ex execute_ex {main}:2",
		},
		{name: "no PHP at all", native: []NativeFrame{native("accept"), native("main")}, want: "accept main"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.end == "" {
				tt.end = Root
			}
			got := Join(Input{Native: tt.native, NativeEnd: tt.end, PHP: tt.php})
			if d := cmp.Diff(tt.want, text(got)); d != "" {
				t.Error(d)
			}
			if tt.err == "" && got.Error != "" || !strings.Contains(got.Error, tt.err) {
				t.Errorf("error %q, want %q", got.Error, tt.err)
			}
			if got.End != tt.end {
				t.Errorf("ended %q, want %q", got.End, tt.end)
			}
		})
	}
}

func TestJoinTakesTheLineFromTheOplineRegister(t *testing.T) {
	const ed = remote.Addr(0x7000)
	lineAt := func(opline remote.Addr) (int, string, bool) {
		return 6, "ZEND_ASSIGN_OP", opline >= 0x500 && opline < 0x600
	}
	regs := func(r14, r15 uint64) *remote.Regs {
		r := &remote.Regs{Arch: remote.AMD64}
		r.Set(remote.R14, r14)
		r.Set(remote.R15, r15)
		return r
	}
	onARM64 := &remote.Regs{Arch: remote.ARM64}
	onARM64.Set(27, uint64(ed))
	onARM64.Set(28, 0x520)
	for _, tt := range []struct {
		name   string
		regs   *remote.Regs
		want   int
		opcode string
	}{
		{"both registers fit, on arm64", onARM64, 6, "ZEND_ASSIGN_OP"},
		{"both registers fit", regs(uint64(ed), 0x520), 6, "ZEND_ASSIGN_OP"},
		{"the opline belongs to another function", regs(uint64(ed), 0x900), 3, ""},
		{"the register belongs to another frame", regs(0x8000, 0x520), 3, ""},
		{"the registers are unknown", &remote.Regs{Arch: remote.AMD64}, 3, ""},
		{"no registers were recovered", nil, 3, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := top("f", 3) // the stale line of execute_data->opline
			f.ExecuteData, f.LineAt = ed, lineAt
			ex := native("execute_ex")
			ex.Regs = tt.regs
			got := Join(Input{Native: []NativeFrame{ex}, NativeEnd: Root, PHP: []PHPFrame{f}}).Frames[1]
			if got.Line != tt.want || got.Opcode != tt.opcode {
				t.Errorf("line %d, opcode %q; want %d, %q", got.Line, got.Opcode, tt.want, tt.opcode)
			}
		})
	}
}

// On arm64 the unwinder leaves JIT code without an execute_ex behind it: the
// registers tell whose frame it runs in, but not the opline.
func TestJoinDoubtsTheOplineRegisterInGeneratedCode(t *testing.T) {
	const ed = remote.Addr(0x7000)
	f := top("f", 3)
	f.ExecuteData, f.LineAt = ed, func(remote.Addr) (int, string, bool) { return 6, "ZEND_ASSIGN_OP", true }
	regs := func(x27 uint64) *remote.Regs {
		r := &remote.Regs{Arch: remote.ARM64}
		r.Set(27, x27)
		r.Set(28, 0x520)
		return r
	}
	jit, outer := native(""), native("zend_execute")
	jit.Module, jit.Regs, outer.Regs = generated, regs(uint64(ed)), regs(1)
	got := Join(Input{Native: []NativeFrame{jit, outer}, NativeEnd: Root, PHP: []PHPFrame{f}})
	if got.Frames[1].Line != 3 || got.Error == "" {
		t.Errorf("line %d, %v: want the stored line, in doubt", got.Frames[1].Line, got.Error)
	}
}

func TestJoinFindsTheNamelessColdPartOfTheExecutor(t *testing.T) {
	const ed = remote.Addr(0x7000)
	frame := func(name string, r14, r15 uint64) NativeFrame {
		f := native(name)
		f.Regs = &remote.Regs{Arch: remote.AMD64}
		f.Regs.Set(remote.R14, r14)
		f.Regs.Set(remote.R15, r15)
		return f
	}
	for _, tt := range []struct {
		name   string
		native []NativeFrame
		want   string
	}{
		{"the last frame that holds the registers", []NativeFrame{frame("", uint64(ed), 0x520), frame("", uint64(ed), 0x520), frame("zend_execute", 1, 2)},
			"?? execute_ex {main}:6 zend_execute"},
		{"not when a named executor follows", []NativeFrame{frame("", uint64(ed), 0x520), frame("execute_ex", uint64(ed), 0x520), frame("zend_execute", 1, 2)},
			"?? execute_ex {main}:6 zend_execute"},
		{"not without an opline of the function", []NativeFrame{frame("", uint64(ed), 0x900), frame("zend_execute", 1, 2)},
			"?? zend_execute {main}:3"},
		{"not with another frame", []NativeFrame{frame("", 5, 0x520), frame("zend_execute", 1, 2)},
			"?? zend_execute {main}:3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := top("{main}", 3)
			f.ExecuteData = ed
			f.LineAt = func(o remote.Addr) (int, string, bool) { return 6, "ZEND_ADD", o >= 0x500 && o < 0x600 }
			got := Join(Input{Native: tt.native, NativeEnd: Root, PHP: []PHPFrame{f}})
			if d := cmp.Diff(tt.want, text(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestJoinSaysWhyPHPFramesEnded(t *testing.T) {
	got := Join(Input{
		Native: []NativeFrame{native("execute_ex"), native("execute_ex")}, NativeEnd: Root,
		PHP: []PHPFrame{top("f", 1)}, PHPErr: errors.New("prev_execute_data forms a cycle"),
	})
	if got.End != Truncated || got.Error != "prev_execute_data forms a cycle" {
		t.Errorf("ended %q: %q", got.End, got.Error)
	}
}

func TestFrameJSONKeepsBothShapes(t *testing.T) {
	for _, f := range []Frame{
		{Kind: Native, Function: "mremap", Raw: "__GI___mremap", Module: "libc.so.6", PC: 0x7f00, Offset: 1, How: "entry", Args: []Arg{{"old_len", "4096"}}},
		{Kind: PHP, Function: "f", Class: `A\B`, File: "/x.php", Line: 3, Opcode: "ZEND_ASSIGN_OP"},
	} {
		b, err := f.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var back Frame
		if err := back.UnmarshalJSON(b); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(f, back); d != "" {
			t.Errorf("%s: %s", b, d)
		}
	}
	for _, bad := range []string{`{}`, `{"kind":"native","pc":"zz"}`, `{"kind":"php","line":"x"}`, `[]`} {
		var f Frame
		if err := f.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
