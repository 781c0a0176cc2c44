package observe

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// TestSamplesOfBlockedScriptsEqualDebugBacktrace looks at every build without
// stopping it.
func TestSamplesOfBlockedScriptsEqualDebugBacktrace(t *testing.T) {
	o := New()
	for _, b := range testphp.AllBuilds(t) {
		for _, script := range testphp.BacktraceScripts(t, b.Version(t)) {
			t.Run(b.Name+"/"+name(script), func(t *testing.T) {
				pid, line := testphp.Blocked(t, b, script)
				want := testphp.Entries(t, line)
				c, err := o.Sample(context.Background(), pid)
				if err != nil {
					t.Fatal(err)
				}
				if len(c.Stacks) != 1 || len(c.Events) != 1 || c.Events[0].TID != pid {
					t.Fatalf("%d stacks, %+v: %v", len(c.Stacks), c.Events, c.Observation.Notes)
				}
				s := &c.Stacks[0]
				if s.End != stack.Root || s.Error != "" {
					t.Fatalf("the stack ends %s: %s", s.End, s.Error)
				}
				got := calls(s.Frames)
				if len(got) == 0 || got[0].Function != "fgets" {
					t.Fatalf("the innermost PHP frame is not the fgets that blocks: %+v", got)
				}
				if d := cmp.Diff(want, got[1:]); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

func name(script string) string {
	return strings.TrimSuffix(script[strings.LastIndex(script, "/")+1:], ".php")
}

func TestFactsOfADeepRecursionInAShutdownFunction(t *testing.T) {
	t.Setenv("PHPWHY_DEPTH", "3000")
	t.Setenv("USE_ZEND_ALLOC", "0")
	t.Setenv("USE_TRACKED_ALLOC", "1")
	for _, b := range testphp.AllBuilds(t) {
		if strings.Contains(b.Name, "JIT") || b.Version(t) < "8.1" {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			b.Args = append(append([]string{}, b.Args...), "-d", "xdebug.max_nesting_level=-1")
			pid, _ := testphp.Blocked(t, b, testphp.Root(t)+"/internal/zend/testdata/_late.php")
			c, err := New().Dump(context.Background(), pid)
			if err != nil {
				t.Fatal(err)
			}
			f := c.Facts
			if f["php.phase"] != "shutdown" || f["php.frames"] != int64(3003) || f["php.frames_exact"] != true {
				t.Errorf("%v", f)
			}
			if held, _ := f["php.output_buffer_bytes"].(int64); held != 2<<20 || f["php.output_buffer_level"] != int64(1) {
				t.Errorf("%v", f)
			}
			who, _ := f["php.allocator"].(string)
			if !strings.HasPrefix(who, "custom:php") && who != "custom:tracked_malloc" {
				t.Errorf("memory comes from %q", who)
			}
			if !strings.HasPrefix(f["php.opcode"].(string), "ZEND_DO_") {
				t.Errorf("opcode %v", f["php.opcode"])
			}
			notes := strings.Join(c.Observation.Notes, "\n")
			if !strings.Contains(notes, "3003 PHP frames") || !strings.Contains(notes, "closure") || !strings.Contains(notes, "descend()") {
				t.Errorf("notes: %s", notes)
			}
		})
	}
}
