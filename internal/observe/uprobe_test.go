package observe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// needUprobes skips a test where the kernel refuses them.
func needUprobes(t testing.TB) {
	t.Helper()
	if err := perf.Supported(); errors.Is(err, proc.ErrPermission) || errors.Is(err, perf.ErrNoUprobes) {
		testphp.Missing(t, err.Error())
	} else if err != nil {
		t.Fatal(err)
	}
}

func probed(t testing.TB, pid int, change func(*Options)) *capture.Capture {
	t.Helper()
	o := Defaults()
	o.Engine, o.Stops, o.MaxPause = EngineUprobe, 0, 1
	change(&o)
	c, err := New().Attach(context.Background(), pid, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// changing is a script whose every function is called from one place only, and
// has the caller's name in its own; it changes its callers all the time. The
// frames are all of one size, so that one frame takes another's place exactly.
func changing(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("<?php\necho \"ready\\n\"; flush();\n")
	const wide = 3
	var define func(name string, deep int)
	define = func(name string, deep int) {
		fmt.Fprintf(&b, "function %s() { return ", name)
		if deep == 0 {
			b.WriteString("getmypid(); }\n")
			return
		}
		for i := range wide {
			fmt.Fprintf(&b, "%s%d() + ", name, i)
		}
		b.WriteString("1; }\n")
		for i := range wide {
			define(fmt.Sprint(name, i), deep-1)
		}
	}
	define("t", 4)
	// Code that is compiled and thrown away, on lines that differ.
	fmt.Fprintf(&b, "function of_eval() {\n")
	for range wide {
		b.WriteString(" eval('getmypid();');\n")
	}
	b.WriteString("}\n")
	fmt.Fprintf(&b, "function of_eval_closure() {\n")
	for range wide {
		b.WriteString(" eval('(function () { return getmypid(); })();');\n")
	}
	b.WriteString("}\n")
	fmt.Fprintf(&b, "function of_closure() {\n")
	for range wide {
		b.WriteString(" (function () { return getmypid(); })();\n")
	}
	b.WriteString("}\n")
	b.WriteString("function through_map() { array_map('of_map', [1, 2]); }\nfunction of_map($x) { return getmypid(); }\n")
	b.WriteString("for (;;) {\n t();\n of_eval();\n of_eval_closure();\n of_closure();\n through_map();\n}\n")
	path := filepath.Join(t.TempDir(), "changing.php")
	writeFile(t.(*testing.T), path, b.String())
	return path
}

var evalFile = regexp.MustCompile(`^(.*)\((\d+)\) : eval\(\)'d code$`)

// wrong says what can't be in a stack of that script, "" when nothing is.
func wrong(file string, lines []string, st *stack.Stack) string {
	var php []*stack.Frame
	for i := range st.Frames {
		if st.Frames[i].Kind == stack.PHP {
			php = append(php, &st.Frames[i])
		}
	}
	if len(php) == 0 {
		return "no PHP frames"
	}
	if last := php[len(php)-1]; last.Function != "{main}" {
		return "the outermost frame is " + last.Function
	}
	line := func(f *stack.Frame) string {
		if f.File != file || f.Line < 1 || f.Line > len(lines) {
			return ""
		}
		return lines[f.Line-1]
	}
	for i, f := range php[:len(php)-1] {
		up := php[i+1]
		at := line(up)
		switch {
		case f.Internal && up.Internal, f.Function == "of_map" && up.Function == "array_map":
		case f.Function == "eval":
			m := evalFile.FindStringSubmatch(f.File)
			if m == nil || m[1] != file || m[2] != fmt.Sprint(up.Line) || !strings.Contains(at, "eval(") {
				return fmt.Sprintf("%s at %s called by %s:%d", f.Function, f.File, up.Function, up.Line)
			}
		case up.Function == "eval":
			if f.Function != "getmypid" && f.File != up.File {
				return "eval calls " + f.Function
			}
		case strings.Contains(up.Function, "{closure") && strings.HasSuffix(up.File, "eval()'d code"):
			if f.Function != "getmypid" {
				return "a closure calls " + f.Function
			}
		case strings.Contains(f.Function, "{closure"):
			if f.Line != up.Line || !strings.Contains(at, "(function") {
				return fmt.Sprintf("closure of line %d called in line %d", f.Line, up.Line)
			}
		case !strings.Contains(at, f.Function+"("):
			return fmt.Sprintf("%s is not called in %s:%d: %.60s", f.Function, up.Function, up.Line, at)
		case f.Function[0] == 't' && f.Function != "t" && f.Function != "through_map" && up.Function != f.Function[:len(f.Function)-1]:
			return fmt.Sprintf("%s called by %s", f.Function, up.Function)
		}
		if !f.Internal && f.Line != 0 && f.Function != "eval" && !strings.Contains(f.Function, "{closure") && line(f) == "" {
			return fmt.Sprintf("%s in %s:%d", f.Function, f.File, f.Line)
		}
	}
	return ""
}

// TestCallersAreThoseOfTheHit is about what a reading after the fact would get
// wrong: when a stack is read the worker has long called other functions.
// TestCallersAreThoseOfTheHitInsideAPIDNamespace has phpwhy and the worker in one
// of their own, where threads have other numbers than the kernel's programs see.
func TestCallersAreThoseOfTheHitInsideAPIDNamespace(t *testing.T) {
	needUprobes(t)
	testphp.AllBuilds(t) // built before
	out, err := exec.Command(testphp.Require(t, "unshare"), "--pid", "--fork", "--mount-proc", "--kill-child",
		os.Args[0], "-test.v", "-test.run=^TestCallersAreThoseOfTheHit$/^(stripped|8.4-zts)$").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestCallersAreThoseOfTheHit/8.4-zts") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestCallersAreThoseOfTheHit(t *testing.T) {
	needUprobes(t)
	for _, b := range testphp.AllBuilds(t) {
		t.Run(b.Name, func(t *testing.T) {
			file := changing(t)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(string(text), "\n")
			w := testphp.StartCommand(t, append(append([]string{b.PHP(t)}, b.Args...), file)...)
			c := probed(t, w.PID, func(o *Options) {
				o.Break, o.For, o.SampleEvery, o.Stops = []string{"getpid"}, 1500*time.Millisecond, time.Millisecond, 30000
			})
			n, bad, short := 0, 0, 0
			for i := range c.Events {
				st := &c.Stacks[c.Events[i].Stack]
				if st.Error != "" {
					short++
					continue
				}
				if n++; wrong(file, lines, st) != "" {
					if bad++; bad <= 3 {
						t.Errorf("%s %s\n%s", c.Events[i].Kind, wrong(file, lines, st), described(st))
					}
				}
			}
			errs := map[string]int{}
			for i := range c.Events {
				e := c.Stacks[c.Events[i].Stack].Error
				e, _, _ = strings.Cut(e, " at 0x")
				errs[e]++
			}
			t.Logf("%d stops, %d samples, %d different stacks: %d wrong, %d incomplete; %v; %v", c.Observation.Stops, c.Observation.Samples, len(c.Stacks), bad, short, errs, c.Observation.Notes)
			if n < 500 {
				t.Errorf("too few to judge by")
			}
		})
	}
}

func described(st *stack.Stack) string {
	var b strings.Builder
	for i := range st.Frames {
		f := &st.Frames[i]
		fmt.Fprintf(&b, "  %s %s %s:%d %s\n", f.Kind, f.QualifiedName(), f.File, f.Line, f.Opcode)
	}
	return b.String() + st.Error
}

// A worker that only waits for a processor is looked at when it has one: a sample
// without native frames would count against a rule about these.
func TestOnABusyHostALoopIsSampledWithItsNativeFrames(t *testing.T) {
	needUprobes(t)
	for range 2 * runtime.NumCPU() {
		testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	}
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	c := probed(t, w.PID, func(o *Options) { o.For = 3 * time.Second })
	whole, bare := 0, 0
	for _, e := range c.Events {
		if e.Kind != capture.Sample {
			continue
		}
		if fs := c.Stacks[e.Stack].Frames; len(fs) > 0 && fs[len(fs)-1].Kind == stack.Native {
			whole++
		} else {
			bare++
		}
	}
	if whole == 0 || bare > 0 {
		t.Errorf("%d samples with native frames, %d without; notes %v", whole, bare, c.Observation.Notes)
	}
}
