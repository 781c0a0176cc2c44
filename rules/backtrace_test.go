package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

func pasted(t *testing.T, file string) *Observation {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "bt", file))
	if err != nil {
		t.Fatal(err)
	}
	o, err := ParseBacktrace(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func describe(f Frame) string {
	s := f.Name
	if s == "" {
		s = "?"
	}
	if f.Inlined {
		s = "~" + s
	}
	return s
}

func TestBacktracesAreRead(t *testing.T) {
	for _, c := range []struct {
		file         string
		stops, depth int
		leaf         string // the first frames
		chain        int
	}{
		{"concat-5.6.31.gdb.txt", 1, 11, "mremap ~mremap_chunk realloc _zend_mm_realloc_int concat_function", 1},
		{"concat-7.1.9.gdb.txt", 1, 13, "mmap ~zend_mm_mmap_fixed ~zend_mm_chunk_extend zend_mm_realloc_heap ~zend_string_extend concat_function", 1},
		{"concat-8.2.32-dwarf.gdb.txt", 1, 13, "mremap ~zend_mm_chunk_extend zend_mm_realloc_huge ~zend_string_extend concat_function ~zend_binary_op", 1},
		{"concat-8.2.36-stripped.gdb.txt", 1, 13, "mremap ? concat_function ? execute_ex", 1},
		{"concat-8.2.32-dwarf.strace.txt", 5, 13, "mremap zend_mm_realloc_huge concat_function", 5},
		{"concat-8.2.32-dwarf.eu-stack.txt", 0, 10, "ZEND_ASSIGN_OP_SPEC_CV_CONST_HANDLER execute_ex zend_execute", 0},
		{"recursion-8.2.36-stripped.gdb.txt", 1, 15, "mmap ? ? ? ? zend_vm_stack_extend execute_ex", 0},
	} {
		t.Run(c.file, func(t *testing.T) {
			o := pasted(t, c.file)
			stops, _ := count(o)
			fs := o.Stacks[0].Frames
			var leaf []string
			for i := range fs {
				leaf = append(leaf, describe(fs[i]))
			}
			if got := strings.Join(leaf, " "); !strings.HasPrefix(got, c.leaf) || len(fs) != c.depth || stops != c.stops {
				t.Errorf("%d stops, %d frames: %s", stops, len(fs), got)
			}
			if got := DeriveChain(o.Events).Steps; got != c.chain {
				t.Errorf("%d steps, want %d", got, c.chain)
			}
		})
	}
	f := pasted(t, "concat-8.2.32-dwarf.gdb.txt").Stacks[0].Frames[4]
	if f.File != "/usr/src/php-8.2/Zend/zend_operators.c" || f.Line != 1973 {
		t.Errorf("%+v", f)
	}
	f = pasted(t, "concat-8.2.32-dwarf.strace.txt").Stacks[0].Frames[0]
	if f.Module != "libc.so.6" || f.Name != "mremap" {
		t.Errorf("%+v", f)
	}
}

func TestFoldedAndForeignLinesOfABacktrace(t *testing.T) {
	o, err := ParseBacktrace(`Thread 2 (LWP 7):
#0  0x00007f00 in poll () from /lib/x86_64-linux-gnu/libc.so.6
#1  0x00005600 in zend_binary_assign_op_helper_SPEC_CV_CONST (binary_op=0x85bb10 <concat_function>)
    at /usr/src/php/Zend/zend_vm_execute.h:32426
#2  <signal handler called>
#3  0x00005601 in ?? ()

Thread 1 (LWP 6):
#0  0x00007f00 in poll () from /lib/x86_64-linux-gnu/libc.so.6
#0  0x00007f00 in poll () from /lib/x86_64-linux-gnu/libc.so.6
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Stacks) != 2 || len(o.Events) != 3 || len(o.Watched) != 0 {
		t.Fatalf("%+v", o)
	}
	fs := o.Stacks[0].Frames
	if fs[0].Module != "libc.so.6" || fs[1].Line != 32426 || fs[2].Name != "<signal handler called>" || !fs[3].Unresolved() {
		t.Errorf("%+v", fs)
	}
}

func TestPastedStacksMayBeQuotedOrIndented(t *testing.T) {
	const gdb = "#0  0x00007f00 in poll () from /lib/libc.so.6\n#1  0x00005600 in php_pollfd_for (fd=1)\n    at /usr/src/php/main/network.c:7\n#2  0x00005601 in ?? ()\n"
	const strace = "mremap(0x7f8936600000, 8192, 12288, 0) = 0x7f8936600000\n > /lib/libc.so.6(mremap+0xa) [0x11]\n > /usr/bin/php8.2(concat_function+0x20c) [0x2f]\n"
	each := func(prefix, text string) string {
		return prefix + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+prefix) + "\n"
	}
	for _, text := range []string{gdb, strace} {
		want, err := ParseBacktrace(text)
		if err != nil || len(want.Stacks) != 1 || len(want.Stacks[0].Frames) < 2 {
			t.Fatal(want, err)
		}
		for _, prefix := range []string{"    ", "\t", "> ", ">", ">> ", "> > ", ">   "} {
			got, err := ParseBacktrace(each(prefix, text))
			if err != nil {
				t.Errorf("%q: %v", prefix, err)
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q: %s", prefix, diff)
			}
		}
	}
}

// spellOut spells a stack: names, modules and places.
func spellOut(o *Observation, i int) []string {
	var out []string
	for _, f := range o.Stacks[i].Frames {
		out = append(out, fmt.Sprintf("%s|%s|%s:%d", f.Name, f.Module, f.File, f.Line))
	}
	return out
}

// The files are what script(1) kept of gdb in a terminal, and of gdb's output in less -R.
func TestPastedStacksMayHaveBeenThroughATerminal(t *testing.T) {
	want := []string{
		"clock_nanosleep||../sysdeps/unix/sysv/linux/clock_nanosleep.c:71",
		"nanosleep||../sysdeps/unix/sysv/linux/nanosleep.c:25",
		"sleep||../sysdeps/posix/sleep.c:55",
		"||:0", "execute_ex||:0", "zend_execute||:0", "zend_execute_scripts||:0", "php_execute_script||:0", "||:0", "||:0",
		"__libc_start_call_main||../sysdeps/nptl/libc_start_call_main.h:58",
		"__libc_start_main_impl||../csu/libc-start.c:360",
		"_start||:0",
	}
	for _, file := range []string{"sleep-8.2.31-stripped.colour.txt", "sleep-8.2.31-stripped.less.txt"} {
		o := pasted(t, file)
		if len(o.Stacks) != 1 {
			t.Fatalf("%s: %d stacks", file, len(o.Stacks))
		}
		if diff := cmp.Diff(want, spellOut(o, 0)); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

func TestPastedStacksMayBeOfAnotherSystem(t *testing.T) {
	utf16le := func(s string) string {
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(s)) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		return string(b)
	}
	utf16be := func(s string) string {
		b := []byte{0xfe, 0xff}
		for _, u := range utf16.Encode([]rune(s)) {
			b = binary.BigEndian.AppendUint16(b, u)
		}
		return string(b)
	}
	files, err := filepath.Glob("testdata/bt/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		file = filepath.Base(file)
		b, err := os.ReadFile(filepath.Join("testdata", "bt", file))
		if err != nil {
			t.Fatal(err)
		}
		text, want := string(b), pasted(t, file)
		for name, changed := range map[string]string{
			"padded lines":         strings.ReplaceAll(text, "\n", "   \n"),
			"lines of Windows":     strings.ReplaceAll(text, "\n", "\r\n"),
			"a byte order mark":    "\ufeff" + text,
			"UTF-16":               utf16le(text),
			"UTF-16 of big endian": utf16be(text),
			"an odd byte":          utf16le(text) + "x",
		} {
			got, err := ParseBacktrace(changed)
			if err != nil {
				t.Errorf("%s, %s: %v", file, name, err)
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %s: %s", file, name, diff)
			}
		}
	}
}

func TestGDBFoldsLinesAtTheTerminalsWidth(t *testing.T) {
	o, err := ParseBacktrace(`#0  __GI___mremap (addr=addr@entry=0x7f1b28e00000,
    old_len=old_len@entry=65646592, new_len=new_len@entry=65650688,
    flags=flags@entry=0) at ../sysdeps/unix/sysv/linux/mremap.c:32
        resultvar = 18446744073709551615
        place = "/srv/app/report.php:7"
#1  0x00005610 in zend_mm_realloc_huge (heap=0x7f1b2c400040,
    ptr=0x7f1b28e00000)
    at /usr/src/php-8.2/Zend/zend_alloc.c:1549
        new_size = <optimized out>
    at a line of something else: 7
#2  0x00005611 in php_module_call (what="a (b", n=1)
    from /usr/lib/php/20220829/redis.so
No locals.
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"mremap||../sysdeps/unix/sysv/linux/mremap.c:32", "zend_mm_realloc_huge||/usr/src/php-8.2/Zend/zend_alloc.c:1549", "php_module_call|redis.so|:0"}
	if diff := cmp.Diff(want, spellOut(o, 0)); diff != "" {
		t.Error(diff)
	}
	stop := Event{Kind: Stop, Symbol: "mremap", Args: []uint64{0x7f1b28e00000, 65646592, 65650688, 0}}
	if diff := cmp.Diff([]Event{stop}, o.Events); diff != "" {
		t.Error(diff)
	}
}

func TestEUStackNamesModules(t *testing.T) {
	// eu-stack -m, and -v, which marks return addresses.
	for _, text := range []string{
		"#0  0x00007f4228eed503 clock_nanosleep@GLIBC_2.2.5 - /usr/lib/x86_64-linux-gnu/libc.so.6\n#1  0x0000557fda56284a - /usr/bin/php8.2\n#2  0x0000557fda6a6ccd execute_ex - /usr/bin/php8.2\n#3  0x00007ffd1 clock_gettime - [vdso: 8798]\n",
		"#0  0x00007f4228eed503     __GI___clock_nanosleep - /usr/lib/x86_64-linux-gnu/libc.so.6\n    ../sysdeps/clock_nanosleep.c:71:10\n#1  0x0000557fda56284a - 1 - /usr/bin/php8.2\n#2  0x0000557fda6a6ccd - 1 execute_ex - /usr/bin/php8.2\n#3  0x00007ffd1 - 1 clock_gettime - [vdso: 8798]\n",
	} {
		o, err := ParseBacktrace(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range o.Stacks[0].Frames {
			got = append(got, f.Name+" "+f.Module)
		}
		if want := []string{"clock_nanosleep libc.so.6", " php8.2", "execute_ex php8.2", "clock_gettime [vdso]"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestABacktraceThatBreaksOffIsTruncated(t *testing.T) {
	for text, want := range map[string]bool{
		"#0  0x01 in mremap ()\n#1  0x02 in ?? ()\n(More stack frames follow...)\n":                                    true,
		"#0  0x01 in mremap ()\nBacktrace stopped: previous frame identical to this frame (corrupt stack?)\n":          true,
		"#0  0x01 in mremap ()\n#1  0x02 in main ()\n":                                                                 false,
		"(More stack frames follow...)\n#0  0x01 in mremap ()\n#1  0x02 in main ()\n[Inferior 1 (process 1) detached]": false,
	} {
		o, err := ParseBacktrace(text)
		if err != nil || len(o.Stacks) != 1 || o.Stacks[0].Truncated != want {
			t.Errorf("%q: %+v %v", text, o, err)
			continue
		}
		v := evaluate(t, mustLoad(t, rule("a.b", `{stack: "leaf mremap\ngap 0-5\nconcat_function"}`, "")), o).Results[0].Verdict
		if (v == Undetermined) != want {
			t.Errorf("%q: %v", text, v)
		}
	}
}

func TestTextWithoutABacktraceIsRefused(t *testing.T) {
	for _, text := range []string{"", "hello\n", "mremap(0x7f, 1, 2, 0) = 0x7f\n", "#x y\n"} {
		if _, err := ParseBacktrace(text); !errors.Is(err, ErrNoBacktrace) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParseBacktrace(strings.Repeat("#1  0x1 in f ()\n", maxPasted+2)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

// TestBuiltInPatternsMatchStacksThatGDBShows holds the native half of the rules
// against PHP versions of which there is no capture.
func TestBuiltInPatternsMatchStacksThatGDBShows(t *testing.T) {
	set, _ := Load(builtin.FS)
	native := func(id string) (out []*seenNode) {
		set.Rule(id).match.walk(func(n node) {
			if s, ok := n.(*seenNode); ok && len(s.native) > 0 {
				out = append(out, &seenNode{in: s.in, native: s.native})
			}
		})
		return out
	}
	for _, c := range []struct{ file, id, via string }{
		{"concat-5.6.31.gdb.txt", "mem.string-concat", "php5"},
		{"concat-7.1.9.gdb.txt", "mem.string-concat", "mapped"},
		{"concat-7.4.33.gdb.txt", "mem.string-concat", "extended"},
		{"concat-8.2.32-dwarf.gdb.txt", "mem.string-concat", "extended"},
		{"concat-8.2.36-stripped.gdb.txt", "mem.string-concat", "extended"},
		{"concat-8.4.24.gdb.txt", "mem.string-concat", "extended"},
		{"concat-8.2.32-dwarf.strace.txt", "mem.string-concat", "extended"},
		{"concat-8.2.36-stripped.strace.txt", "mem.string-concat", "extended"},
		{"array-append-8.2.32-dwarf.gdb.txt", "mem.array-append", "list"},
		{"array-append-8.2.36-stripped.gdb.txt", "mem.array-append", "list"},
		{"recursion-8.2.32-dwarf.gdb.txt", "mem.recursion", ""},
		{"recursion-8.2.36-stripped.gdb.txt", "mem.recursion", ""},
	} {
		s := &pasted(t, c.file).Stacks[0]
		for _, id := range []string{"mem.string-concat", "mem.array-append", "mem.recursion"} {
			h := native(id)[0].on(look(s))
			if h.ok != (id == c.id) || h.ok && h.via != c.via {
				t.Errorf("%s on %s: %v via %q", id, c.file, h.ok, h.via)
			}
		}
	}
}

func TestPastedTextLacksPHPFrames(t *testing.T) {
	set, _ := Load(builtin.FS)
	rep := evaluate(t, set, pasted(t, "concat-8.2.36-stripped.strace.txt"))
	for _, r := range rep.Results {
		if r.Rule.ID == "mem.string-concat" && (r.Verdict == Match || r.Verdict == Undetermined && !strings.Contains(strings.Join(r.Missing, " "), "PHP frames")) {
			t.Errorf("%v %q", r.Verdict, r.Missing)
		}
	}
}

// FuzzParseBacktrace holds that any text gives a consistent observation or an error.
func FuzzParseBacktrace(f *testing.F) {
	files, _ := filepath.Glob("testdata/bt/*.txt")
	for _, p := range files {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseBacktrace(text)
		if err != nil {
			return
		}
		if err := o.Validate(); err != nil {
			t.Error(err)
		}
		for _, s := range o.Stacks {
			if len(s.Frames) == 0 {
				t.Error("a stack without frames")
			}
		}
	})
}
