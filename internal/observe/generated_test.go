package observe

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// expected reads a script's second line: the functions that may be innermost,
// each with the lines that it may be in.
func expected(t *testing.T, script string) map[string][]int {
	t.Helper()
	b, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]int)
	name := ""
	for _, w := range strings.Fields(strings.Split(string(b), "\n")[1])[1:] {
		if n, err := strconv.Atoi(w); err == nil {
			out[name] = append(out[name], n)
		} else {
			name = w
		}
	}
	return out
}

// TestStacksThroughGeneratedCodeAreWhole looks at running loops that PHP's JIT
// has compiled, and at a regular expression that PCRE's has: every stack must
// reach the thread's first function through execute_ex with all PHP frames in
// place, and a line must be right unless it is said to be doubtful.
func TestStacksThroughGeneratedCodeAreWhole(t *testing.T) {
	scripts, err := filepath.Glob("testdata/generated/*.php")
	if err != nil || len(scripts) < 5 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	o := New()
	stacks, generated, doubtful, guessedRight, between := 0, 0, 0, 0, 0
	for _, b := range testphp.AllBuilds(t) {
		if !strings.Contains(b.Name, "JIT") && b.Name != "stripped" && b.Name != "8.2-nts" && b.Name != "8.4-nts" {
			continue
		}
		for _, script := range scripts {
			t.Run(b.Name+"/"+strings.TrimSuffix(filepath.Base(script), ".php"), func(t *testing.T) {
				want := expected(t, script)
				w := testphp.StartCommand(t, append(append([]string{b.PHP(t), "-d", "memory_limit=-1"}, b.Args...), script)...)
				for range 5 {
					time.Sleep(30 * time.Millisecond)
					c, err := o.Dump(context.Background(), w.PID)
					if err != nil {
						t.Fatal(err)
					}
					s := &c.Stacks[0]
					stacks++
					if slices.ContainsFunc(s.Frames, func(f stack.Frame) bool { return f.Module == "[jit]" }) {
						generated++
					}
					doubt := strings.HasPrefix(s.Error, "the line of ") && strings.HasSuffix(s.Error, " may be one it has left since")
					// In the few instructions in which a function returns, the two
					// stacks disagree, and the joined one says so.
					if s.End == stack.Root && strings.Contains(s.Error, "run no PHP frame") {
						between++
						continue
					}
					if s.End != stack.Root || s.Error != "" && !doubt {
						t.Fatalf("the stack ends %s: %s\n%s", s.End, s.Error, outline(s.Frames))
					}
					var user *stack.Frame
					for i := range s.Frames {
						if f := &s.Frames[i]; f.Kind == stack.PHP && !f.Internal {
							user = f
							break
						}
					}
					if user == nil {
						t.Fatalf("no PHP frame\n%s", outline(s.Frames))
					}
					right := slices.Contains(want[user.Function], user.Line) || user.Function == "{main}"
					if doubt {
						doubtful++
						if right {
							guessedRight++
						}
					} else if !right {
						t.Errorf("%s() at line %d, want one of %v\n%s", user.Function, user.Line, want, outline(s.Frames))
					}
				}
			})
		}
	}
	if between > stacks/50+1 {
		t.Errorf("in %d of %d stacks native and PHP frames disagree", between, stacks)
	}
	t.Logf("%d stacks, %d of them through generated code; %d doubtful lines, of which %d are right", stacks, generated, doubtful, guessedRight)
}
