package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/symbolize/symname"
)

// gdbFrame is a frame as gdb has it.
type gdbFrame struct {
	Name   string
	PC     uint64
	Inline bool
	File   string
	Line   int
}

// gdbFrames prints the frames of the stopped thread from within gdb.
const gdbFrames = `python
import gdb, json
f, out = gdb.newest_frame(), []
tail = getattr(gdb, "TAILCALL_FRAME", -1)
while f is not None:
    if f.type() == tail:  # phpwhy does not find these yet
        f = f.older()
        continue
    sal = f.find_sal()
    out.append(dict(Name=f.name() or '', PC=f.pc() & (2**64 - 1), Inline=f.type() == gdb.INLINE_FRAME,
        File=sal.symtab.filename if sal.symtab else '', Line=sal.line if sal.symtab else 0))
    f = f.older()
print('FRAMES ' + json.dumps(out))
end
`

func gdb(t *testing.T, pid int, before ...string) []gdbFrame {
	t.Helper()
	args := []string{"-p", fmt.Sprint(pid)}
	for _, b := range before {
		args = append(args, "-ex", b)
	}
	args = append(args, "-x", framesScript(t))
	if len(before) > 0 {
		// It must stand where gdb has stopped it.
		args = append(args, "-ex", fmt.Sprintf("shell kill -STOP %d", pid), "-ex", "detach")
	}
	return gdbRun(t, args...)
}

// gdbCore is gdb on a core file.
func gdbCore(t *testing.T, exe, core string) []gdbFrame {
	t.Helper()
	return gdbRun(t, exe, core, "-x", framesScript(t))
}

func framesScript(t *testing.T) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), "frames.gdb")
	writeFile(t, script, gdbFrames)
	return script
}

func gdbRun(t *testing.T, args ...string) []gdbFrame {
	t.Helper()
	args = append([]string{"-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load no",
		"-iex", "set backtrace past-main on", "-iex", "set backtrace past-entry on"}, args...)
	out, err := exec.Command(testphp.Require(t, "gdb"), args...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if j, ok := strings.CutPrefix(line, "FRAMES "); ok {
			var fs []gdbFrame
			if err := json.Unmarshal([]byte(j), &fs); err != nil {
				t.Fatal(err)
			}
			return fs
		}
	}
	t.Fatalf("gdb printed no frames (%v): %s", err, out)
	return nil
}

// compare holds a dump's native frames against gdb's.
func compare(t *testing.T, got []stack.Frame, want []gdbFrame) (same int) {
	t.Helper()
	var native []stack.Frame
	for i := range got {
		if got[i].Kind == stack.Native {
			native = append(native, got[i])
		}
	}
	// At the first instruction of an inlined call gdb does not show that call
	// yet: it behaves as if it were still to be entered.
	for len(native) > len(want) && native[0].Inlined && len(want) > 0 && symname.Canonical(want[0].Name) != native[0].Function {
		native = native[1:]
	}
	for i := 0; i < len(native) || i < len(want); i++ {
		if i >= len(native) || i >= len(want) {
			t.Errorf("%d frames, gdb has %d\n%s", len(native), len(want), sideBySide(native, want))
			return same
		}
		g, w := &native[i], &want[i]
		if g.Function != symname.Canonical(w.Name) || g.File != w.File || g.Line != w.Line || g.Inlined != w.Inline || uint64(g.PC) != w.PC && !w.Inline {
			t.Errorf("frame %d differs\n%s", i, sideBySide(native, want))
			return same
		}
		same++
	}
	return same
}

func sideBySide(native []stack.Frame, want []gdbFrame) string {
	var b strings.Builder
	for i := 0; i < len(native) || i < len(want); i++ {
		if i < len(native) {
			g := &native[i]
			fmt.Fprintf(&b, "#%d phpwhy %s %s:%d inlined %v %v (%s)\n", i, g.Raw, g.File, g.Line, g.Inlined, g.PC, g.How)
		}
		if i < len(want) {
			w := &want[i]
			fmt.Fprintf(&b, "#%d gdb    %s %s:%d inlined %v %#x\n", i, w.Name, w.File, w.Line, w.Inline, w.PC)
		}
	}
	return b.String()
}

func TestNativeFramesAgreeWithGDB(t *testing.T) {
	php := testphp.DWARF(t)
	at := []string{"tbreak mremap", "continue"}
	cases := []struct {
		name   string
		script string
		rounds int
		before []string // gdb commands that bring it to an interesting place
	}{
		{"concat at mremap", "mem.string-concat.php", 1, at},
		{"concat anywhere", "mem.string-concat.php", 4, nil},
		{"array append at mremap", "mem.array-append.php", 1, at},
		{"array append anywhere", "mem.array-append.php", 4, nil},
		{"recursion 50 deep", "recursion50.php", 1, nil},
		{"preg_match", "preg.php", 4, nil},
		{"usort with a closure", "usort.php", 4, nil},
		{"sleep", "sleep.php", 1, nil},
		{"a loop", "cpu.php-loop.php", 4, nil},
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			w := testphp.Start(t, php, testphp.Hang(t, tt.script))
			for round := range tt.rounds {
				time.Sleep(time.Duration(17*round) * time.Millisecond)
				agree(t, w.PID, tt.before)
				if err := syscall.Kill(w.PID, syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	t.Run("php-fpm worker in accept", func(t *testing.T) {
		p := testphp.FPM(t, testphp.DWARFFPM(t), 1)
		awaitState(t, p.Workers[0], "S")
		agree(t, p.Workers[0], nil)
	})
	t.Run("php-fpm worker in a script", func(t *testing.T) {
		p := testphp.FPM(t, testphp.DWARFFPM(t), 1)
		agree(t, p.Hang(t, testphp.Hang(t, "mem.string-concat.php"), ""), nil)
	})
}

// agree stops a process and compares its one thread.
func agree(t *testing.T, pid int, before []string) {
	t.Helper()
	var want []gdbFrame
	if before == nil {
		stop(t, pid)
		want = gdb(t, pid)
	} else {
		want = gdb(t, pid, before...)
	}
	awaitState(t, pid, "T")
	c, err := New().Dump(context.Background(), pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Stacks) != 1 {
		t.Fatalf("%d stacks, want one", len(c.Stacks))
	}
	s := c.Stacks[0]
	if s.End != stack.Root || s.Error != "" {
		t.Errorf("the stack ended %q: %s", s.End, s.Error)
	}
	n := compare(t, s.Frames, want)
	t.Logf("%d of %d frames agree", n, len(want))
	awaitState(t, pid, "T") // a stopped process stays stopped
}
