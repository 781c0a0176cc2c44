package observe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// calls turns a joined stack's PHP frames into what debug_backtrace() would
// say: each call with its caller's place.
func calls(frames []stack.Frame) []testphp.Entry {
	var php []stack.Frame
	for _, f := range frames {
		if f.Kind == stack.PHP {
			php = append(php, f)
		}
	}
	var out []testphp.Entry
	for i, f := range php {
		if f.Function == "{main}" {
			continue
		}
		e := testphp.Entry{Function: f.Function, Class: f.Class}
		caller := i + 1
		for caller < len(php) && php[caller].Via {
			caller++
		}
		if caller < len(php) && !php[caller].Internal {
			e.File, e.Line = php[caller].File, php[caller].Line
		}
		out = append(out, e)
	}
	return out
}

// TestJoinedStacksAreWholeAndEqualDebugBacktrace looks at every build of PHP
// from the outside in: the native frames reach the thread's first function,
// every PHP frame has found the native frame that runs it, and the PHP frames
// are those that the script itself has printed.
func TestJoinedStacksAreWholeAndEqualDebugBacktrace(t *testing.T) {
	compared, o := 0, New()
	var table strings.Builder
	for _, b := range testphp.AllBuilds(t) {
		scripts := testphp.BacktraceScripts(t, b.Version(t))
		frames, agree := 0, 0
		for _, script := range scripts {
			t.Run(b.Name+"/"+strings.TrimSuffix(filepath.Base(script), ".php"), func(t *testing.T) {
				pid, line := testphp.Blocked(t, b, script)
				want := testphp.Entries(t, line)
				c, err := o.Dump(context.Background(), pid)
				if err != nil {
					t.Fatal(err)
				}
				if len(c.Stacks) != 1 {
					t.Fatalf("%d stacks", len(c.Stacks))
				}
				s := &c.Stacks[0]
				if s.End != stack.Root || s.Error != "" {
					t.Errorf("the stack ends %s: %s\n%s", s.End, s.Error, outline(s.Frames))
				}
				frames += len(want) + 1
				got := calls(s.Frames)
				if len(got) == 0 || got[0].Function != "fgets" {
					t.Fatalf("the innermost PHP frame is not the fgets that blocks: %+v", got)
				}
				if d := cmp.Diff(want, got[1:]); d != "" {
					t.Error(d)
				}
				compared += len(got)
				if !t.Failed() {
					agree += len(got)
				}
			})
		}
		fmt.Fprintf(&table, "| %s | %d | %d | %d |\n", b.Name, len(scripts), frames, agree)
	}
	t.Logf("%d frames compared", compared)
	figures(t, "| PHP | scripts | frames | equal |\n| --- | --- | --- | --- |\n"+table.String())
}

// figures appends a table to the file that $PHPWHY_FIGURES names.
func figures(t *testing.T, table string) {
	t.Helper()
	name := os.Getenv("PHPWHY_FIGURES")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(table + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Error(err)
	}
}

// outline shows which frames are whose.
func outline(frames []stack.Frame) string {
	var b strings.Builder
	for i := range frames {
		f := &frames[i]
		if f.Kind == stack.PHP {
			b.WriteString("  PHP ")
		}
		b.WriteString(f.QualifiedName() + " " + f.Module + "\n")
	}
	return b.String()
}
