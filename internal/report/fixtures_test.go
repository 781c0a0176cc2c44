package report

import (
	"fmt"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func native(function, module string, pc remote.Addr) stack.Frame {
	return stack.Frame{Kind: stack.Native, Function: function, Raw: function, Module: module, PC: pc, Offset: uint64(pc & 0xfff), How: "cfi"}
}

func unknown(module string, pc remote.Addr, offset uint64) stack.Frame {
	return stack.Frame{Kind: stack.Native, Module: module, PC: pc, Offset: offset, How: "cfi"}
}

func source(f stack.Frame, file string, line int) stack.Frame {
	f.File, f.Line = file, line
	return f
}

func inlined(function, file string, line int) stack.Frame {
	return stack.Frame{Kind: stack.Native, Function: function, Raw: function, Module: "php8.2", PC: 0x5653bb420202, File: file, Line: line, Inlined: true, How: "inline"}
}

func user(function, file string, line int, opcode string) stack.Frame {
	return stack.Frame{Kind: stack.PHP, Function: function, File: file, Line: line, Opcode: opcode}
}

func mremap() stack.Frame {
	f := native("mremap", "libc.so.6", 0x7fa5f8ff39d0)
	f.Raw, f.How = "__GI___mremap", "entry"
	f.Args = []stack.Arg{{Name: "addr", Value: "0x7fa5f4c00000"}, {Name: "old_len", Value: "48599040"}, {Name: "new_len", Value: "48603136"}, {Name: "flags", Value: "0"}}
	return f
}

var (
	report = "/srv/app/report.php"
	roots  = []stack.Frame{
		user("buildReport", report, 6, "ZEND_ASSIGN_OP"), user("{main}", report, 9, ""),
		native("zend_execute_scripts", "php8.2", 0x5653bb427b9a), native("main", "php8.2", 0x5653bb23357f),
		native("_start", "php8.2", 0x5653bb2335a1),
	}
)

// stripped is the string append as Debian's binary shows it, dwarf as a build
// with debug information does.
func stripped() stack.Stack {
	return stack.Stack{End: stack.Root, Frames: append([]stack.Frame{mremap(), unknown("php8.2", 0x5653bb3fc545, 0x2fc545),
		native("concat_function", "php8.2", 0x5653bb420202), unknown("php8.2", 0x5653bb4760bf, 0x3760bf),
		native("execute_ex", "php8.2", 0x5653bb48bae7)}, roots...)}
}

func dwarf() stack.Stack {
	tail := source(native("zend_mm_realloc_heap", "php8.2", 0x5653bb3fd000), "/usr/src/php-8.2.32/Zend/zend_alloc.c", 1600)
	tail.How = "tail-call"
	return stack.Stack{End: stack.Root, Frames: append([]stack.Frame{
		source(mremap(), "../sysdeps/unix/sysv/linux/mremap.c", 32),
		inlined("zend_mm_chunk_extend", "/usr/src/php-8.2.32/Zend/zend_alloc.c", 827),
		source(native("zend_mm_realloc_huge", "php8.2", 0x5653bb3fc545), "/usr/src/php-8.2.32/Zend/zend_alloc.c", 1549),
		tail,
		inlined("zend_string_extend", "/usr/src/php-8.2.32/Zend/zend_string.h", 249),
		source(native("concat_function", "php8.2", 0x5653bb420202), "/usr/src/php-8.2.32/Zend/zend_operators.c", 1973),
		inlined("ZEND_ASSIGN_OP_SPEC_CV_CONST_HANDLER", "/usr/src/php-8.2.32/Zend/zend_vm_execute.h", 40566),
		source(native("execute_ex", "php8.2", 0x5653bb48bae7), "/usr/src/php-8.2.32/Zend/zend_vm_execute.h", 59624),
	}, roots...)}
}

// base is a capture of n stops and m samples of one stack.
func base(s stack.Stack, stops, samples int) *capture.Capture {
	c := &capture.Capture{
		Target: capture.Target{PID: 4242, Cmdline: "php report.php", Exe: "/usr/bin/php8.2", PHPVersion: "8.2.36", SAPI: "cli",
			Libc: "glibc", Symbols: "dynsym", Layout: "builtin"},
		Observation: capture.Observation{Engine: "hwbp", DurationMS: 3000, Stops: stops, Samples: samples, PausedUSTotal: 9800, PausedUSMax: 120,
			Breakpoints: []capture.Breakpoint{{Symbol: "mremap", Module: "libc.so.6", Addr: "0x7fa5f8ff39d0", Hits: 7993}}, Ended: "duration"},
		Stacks: []stack.Stack{s},
	}
	for i := range stops {
		n := uint64(2<<20 + 4096*i)
		c.Events = append(c.Events, capture.Event{At: time.Duration(i) * time.Millisecond, Kind: capture.Stop, TID: 4242, Symbol: "mremap",
			Args: []uint64{0x7fa5f4c00000, n, n + 4096, 0}})
	}
	for i := range samples {
		c.Events = append(c.Events, capture.Event{At: time.Duration(i) * time.Second, Kind: capture.Sample, TID: 4242})
	}
	return c
}

func concat() Finding {
	return Finding{Rule: "mem.string-concat", Severity: "high", Confidence: 0.95, Kind: Cause, Title: "A string is appended to without end",
		Message: "report.php:6 appends to one string in a loop: 7993 growths, now 33 MiB\n",
		Fix:     "Bound the loop; write in chunks\nor use php://temp.\n",
		PHP:     Site{Function: "buildReport", File: report, Line: 6},
		Evidence: []Evidence{
			{What: "mremap grew one block", N: 7993, FromBytes: 2 << 20, ToBytes: 2<<20 + 7993*4096},
			{What: "stacks that match", N: 200},
		},
		Matched: 200, Of: 200}
}

// scene is one report of the golden files.
type scene struct {
	name    string
	capture *capture.Capture
	verdict Verdict
	options TextOptions
}

func scenes() []scene {
	request := base(stripped(), 200, 20)
	request.Target.SAPI = "fpm-fcgi"
	request.Target.Request = &capture.Request{Method: "GET", URI: "/report?month=11", Script: "/srv/app/public/index.php", AgeMS: new(int64(412000))}

	doubtful := concat()
	doubtful.Confidence, doubtful.Matched = 0.55, 110
	doubtful.Evidence = doubtful.Evidence[:1]
	second := Finding{Rule: "cpu.php-loop", Severity: "medium", Confidence: 0.7, Kind: Cause, Title: "PHP code loops without a system call",
		Matched: 15, Of: 20, PHP: Site{Class: `App\Report`, Function: "build", File: report, Line: 6}}

	return []scene{
		{"concat-stripped", base(stripped(), 200, 0), Verdict{Findings: []Finding{concat()}}, TextOptions{}},
		{"concat-dwarf-colour", base(dwarf(), 200, 0), Verdict{Findings: []Finding{concat()}, Undetermined: manyUndetermined(2)}, TextOptions{Color: true, Width: 80}},
		{"doubtful-with-request", request, Verdict{Findings: []Finding{doubtful, second},
			Undetermined: []Undetermined{{Rule: "mem.huge-realloc", Missing: []string{"chain"}}}}, TextOptions{Width: 100}},
		{"no-rule", base(stripped(), 200, 0), Verdict{Undetermined: manyUndetermined(7), Notes: []string{"rule my.rule was skipped: it wants php <8"}}, TextOptions{}},
		{"several-stacks", severalStacks(), Verdict{}, TextOptions{}},
		{"idle", idle(), Verdict{Findings: []Finding{{Rule: "idle.fpm-accept", Severity: "info", Confidence: 0.98, Kind: Benign,
			Title: "The worker waits for a request", Matched: 1, Of: 1}}}, TextOptions{}},
		{"dump-threads", dumpThreads(), Verdict{}, TextOptions{}},
		{"truncated-stack", truncated(), Verdict{}, TextOptions{}},
		{"recursion", recursion(), Verdict{Findings: []Finding{{Rule: "mem.recursion", Severity: "high", Confidence: 0.9, Kind: Cause,
			Title: "PHP functions recurse without end", Matched: 1, Of: 1, Evidence: []Evidence{{What: "PHP depth", N: 4980}}}}}, TextOptions{}},
		{"hostile-names", hostile(), Verdict{Findings: []Finding{hostileFinding()}, Undetermined: []Undetermined{{Rule: evil, Missing: []string{evil}}}, Notes: []string{evil}}, TextOptions{Width: 60}},
		{"values", withValues(), Verdict{Findings: []Finding{concat()}}, TextOptions{Width: 80}},
		{"nothing-observed", &capture.Capture{Target: capture.Target{PID: 7}, Observation: capture.Observation{Engine: "hwbp", Ended: "target-exited"}}, Verdict{}, TextOptions{}},
	}
}

// withValues has variables of all sorts, hostile ones among them.
func withValues() *capture.Capture {
	s := stripped()
	fs := append([]stack.Frame{}, s.Frames...)
	s.Frames = fs
	first := true
	for i := range fs {
		f := &fs[i]
		if f.Kind != stack.PHP {
			continue
		}
		if !first {
			f.Values = []stack.Value{}
			continue
		}
		first = false
		f.Values = []stack.Value{
			{Name: "$this", Kind: "this", Type: "object", Value: `object(App\Report)#3`},
			{Name: "$row", Kind: "argument", Type: "int", Value: "5"},
			{Name: "#2", Kind: "argument", Type: "null", Value: "null"},
			{Name: "$report", Kind: "variable", Type: "string", Value: `"aaaa…" (1,048,576 bytes)`},
			{Name: "$dbPassword", Kind: "variable", Type: "string", Value: "[redacted]", Redacted: true},
			{Name: "$later", Kind: "variable", Type: "undef", Value: "undefined"},
			{Name: evil, Kind: "variable", Type: "array", Value: evil},
			{Name: "$never", Kind: "variable", Type: "undef", Value: "undefined"},
		}
		for i := range maxValues {
			f.Values = append(f.Values, stack.Value{Name: fmt.Sprint("$v", i), Kind: "variable", Type: "bool", Value: "true"})
		}
		f.Values = append(f.Values, stack.Value{Name: "…", Kind: "variable", Value: "1,000 more were not read"})
	}
	c := base(s, 200, 0)
	c.Variables = []capture.Variable{
		{Var: "row", At: "report.php:6", Seen: 200, First: "1", Last: "900", Distinct: 200, Trend: "grows"},
		{Var: "report", At: "report.php", Seen: 2, First: `"a"`, Last: `"aa"`, Distinct: 2, Trend: "grows"},
		{Var: "mode", At: "report.php", Seen: 20, First: "true", Last: "true", Distinct: 1, Trend: "constant"},
		{Var: "token", At: "a b.php:7", Seen: 20, First: "[redacted]", Last: "[redacted]"},
		{Var: "once", At: "report.php", Seen: 1, First: "null", Last: "null", Distinct: 1},
		{Var: "typo", At: "report.php:7"},
		{Var: "x", At: evil, Seen: 3, First: evil, Last: "2", Distinct: 3, Trend: "varies"},
	}
	return c
}

func manyUndetermined(n int) []Undetermined {
	var us []Undetermined
	for i := range n {
		us = append(us, Undetermined{Rule: fmt.Sprintf("wait.number-%d", i), Missing: []string{"fd.peer", "proc.wchan"}[:i%3]})
	}
	return us
}

// severalStacks has stops at two places, and samples of a busy loop that
// differ in their address only.
func severalStacks() *capture.Capture {
	c := base(stripped(), 200, 0)
	other := stack.Stack{End: stack.Root, Frames: append([]stack.Frame{native("mmap", "libc.so.6", 0x7fa5f8ff3000)}, roots...)}
	c.Stacks = append(c.Stacks, other)
	for i := range 50 {
		c.Events[i].Stack = 1
	}
	for i := range 20 {
		c.Stacks = append(c.Stacks, stack.Stack{End: stack.Root, Frames: append([]stack.Frame{native("execute_ex", "php8.2", remote.Addr(0x5653bb480000+4*i))}, roots...)})
		c.Events = append(c.Events, capture.Event{At: time.Duration(i) * time.Second, Kind: capture.Sample, TID: 4242, Stack: len(c.Stacks) - 1})
	}
	c.Observation.Samples = 20
	return c
}

func idle() *capture.Capture {
	c := base(stack.Stack{End: stack.Root, Frames: []stack.Frame{native("accept", "libc.so.6", 0x7f0000001000),
		native("fcgi_accept_request", "php-fpm8.2", 0x560000002000), native("main", "php-fpm8.2", 0x560000003000)}}, 0, 1)
	c.Target.SAPI = "fpm-fcgi"
	c.Observation = capture.Observation{Engine: "none", Samples: 1, PausedUSTotal: 88, PausedUSMax: 88, Ended: "duration"}
	return c
}

func dumpThreads() *capture.Capture {
	c := idle()
	c.Target.ZTS, c.Target.SAPI = true, "embed"
	c.Stacks = append(c.Stacks, stripped())
	for i := range 6 {
		c.Events = append(c.Events, capture.Event{Kind: capture.Sample, TID: 4250 - i, Stack: 0})
	}
	c.Events = append(c.Events, capture.Event{Kind: capture.Sample, TID: 4260, Stack: 1})
	c.Observation.Samples = 8
	return c
}

func truncated() *capture.Capture {
	s := stripped()
	s.Frames = append(s.Frames[:4:4], stack.Frame{Kind: stack.Native, PC: 0x7f1234, How: "frame-pointer"})
	s.End, s.Error = stack.Truncated, "no call-frame information for 0x7f1234, which is anonymous executable memory"
	c := base(s, 3, 0)
	c.Observation = capture.Observation{Ended: "truncated", Stops: 3, DurationMS: 2, Notes: []string{"the capture file is cut off"}}
	return c
}

// recursion has one function that calls itself at one line, two that call each
// other, and one that calls itself at ever other lines.
func recursion() *capture.Capture {
	fs := []stack.Frame{native("mmap", "libc.so.6", 0x7fa5f8ff3000), native("zend_vm_stack_extend", "php8.2", 0x5653bb400000), native("execute_ex", "php8.2", 0x5653bb48bae7)}
	for range 4980 {
		fs = append(fs, user("fact", "/srv/app/fact.php", 3, "ZEND_DO_UCALL"))
	}
	for i := range 900 {
		fs = append(fs, user([]string{"even", "odd"}[i%2], "/srv/app/parity.php", 3+i%2, ""))
	}
	for i := range 800 { // no two alike: nothing to fold, too much to show
		fs = append(fs, user("walk", "/srv/app/walk.php", 10+i, ""))
	}
	return base(stack.Stack{End: stack.Root, Frames: append(fs, user("{main}", "/srv/app/fact.php", 6, ""), native("main", "php8.2", 0x5653bb23357f))}, 1, 0)
}

// evil is everything that a name must not do to a terminal: clear it, end a
// line, ring, delete, use C1 controls as runes and as bytes, turn text round, hide.
const evil = "a\x1b[2J\nb\r\a\x00c\x7f\u009b31md\x9b\xffe\u202ef\u2066g\u200bh\ufeffi\u2028j\U000e0041k\u00a0l"

func hostile() *capture.Capture {
	f := native(evil, evil, 0x7fa5f8ff3000)
	f.Args = []stack.Arg{{Name: evil, Value: evil}}
	g := unknown(evil, 0x7fa5f8ff3001, 1)
	php := user(evil, evil, 1, evil)
	php.Class = evil
	c := base(stack.Stack{End: stack.Truncated, Error: evil, Frames: []stack.Frame{f, source(f, evil, 3), g, php}}, 1, 0)
	c.Target = capture.Target{PID: 1, Cmdline: evil, Exe: evil, PHPVersion: evil, SAPI: evil, Request: &capture.Request{Method: evil, URI: evil, Script: evil}}
	c.Observation.Engine, c.Observation.Notes = evil, []string{evil}
	c.Observation.Breakpoints = []capture.Breakpoint{{Symbol: evil, Module: evil, Addr: "0x1", Hits: 1}}
	return c
}

func hostileFinding() Finding {
	return Finding{Rule: evil, Severity: "low", Confidence: 1, Kind: Cause, Title: evil, Message: evil, Fix: evil,
		PHP: Site{Function: evil, Class: evil, File: evil, Line: 1}, Evidence: []Evidence{{What: evil}}, Matched: 1, Of: 1}
}
