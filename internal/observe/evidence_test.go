package observe

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// observed attaches to a script for a moment and returns a fact.
func observed(t *testing.T, php, script string, want ...string) map[string]any {
	t.Helper()
	w := testphp.Start(t, php, script)
	opt := Defaults()
	opt.For = 800 * time.Millisecond
	c, err := New().Attach(context.Background(), w.PID, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range want {
		if _, ok := c.Facts[name]; !ok {
			t.Fatalf("%s: no %s in %v", filepath.Base(script), name, c.Facts)
		}
	}
	return c.Facts
}

func TestEvidenceOfTheCallThatLasts(t *testing.T) {
	for name, php := range map[string]string{"stripped": testphp.Stripped(t), "dwarf": testphp.DWARF(t)} {
		t.Run(name, func(t *testing.T) {
			f := observed(t, php, testphp.Hang(t, "cpu.password-hash.php"), "stack.same_call_s", "stack.arg_bytes")
			if s := f["stack.same_call_s"].(float64); s < 0.4 {
				t.Errorf("one call lasted %v s", s)
			}
			if n := f["stack.arg_bytes"]; n != int64(len("correct horse battery staple")) {
				t.Errorf("the longest argument has %v bytes", n)
			}
			// Many calls, each with another needle.
			f = observed(t, php, testphp.Hang(t, "cpu.linear-search.php"), "stack.same_call_s")
			if s := f["stack.same_call_s"].(float64); s > 0.2 {
				t.Errorf("one of many calls lasted %v s", s)
			}
		})
	}
}

func TestEvidenceOfKeysThatCollide(t *testing.T) {
	healthy := filepath.Join(testphp.Root(t), "testdata/healthy")
	for name, php := range map[string]string{"stripped": testphp.Stripped(t), "dwarf": testphp.DWARF(t)} {
		t.Run(name, func(t *testing.T) {
			f := observed(t, php, testphp.Hang(t, "cpu.hash-collision.php"), "hash.keys", "hash.keys_per_slot")
			if n := f["hash.keys_per_slot"].(float64); n < 64 {
				t.Errorf("%v keys share a slot, of %v", n, f["hash.keys"])
			}
			f = observed(t, php, filepath.Join(healthy, "lookups.php"), "hash.keys", "hash.keys_per_slot")
			if n := f["hash.keys_per_slot"].(float64); n > 4 {
				t.Errorf("%v keys share a slot, of %v", n, f["hash.keys"])
			}
			// Keys that follow each other fill a part of the table.
			if n, ok := observed(t, php, testphp.Hang(t, "mem.unserialize.php"))["hash.keys_per_slot"].(float64); ok && n > 4 {
				t.Errorf("%v keys share a slot", n)
			}
		})
	}
}

func TestEvidenceOfWhatIsRead(t *testing.T) {
	f := observed(t, testphp.Stripped(t), filepath.Join(testphp.Root(t), "testdata/healthy/lines.php"), "proc.read_bytes_per_s", "proc.tracer_pid")
	if n := f["proc.read_bytes_per_s"].(float64); n < 1e6 {
		t.Errorf("%v bytes are read per second", n)
	}
	if n := f["proc.tracer_pid"]; n != int64(0) {
		t.Errorf("it has the tracer %v", n)
	}
	f = observed(t, testphp.Stripped(t), testphp.Hang(t, "cpu.feof-loop.php"), "proc.read_bytes_per_s")
	if n := f["proc.read_bytes_per_s"].(float64); n > 1000 {
		t.Errorf("%v bytes are read per second where there are none", n)
	}
}

// TestEvidenceOfMemoryAndOfTheKernel looks at a worker in each of the ways that
// there are: what a look is made with must not be taken for what the worker does.
func TestEvidenceOfMemoryAndOfTheKernel(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, "x.lock")
	held, waits := filepath.Join(dir, "held.php"), filepath.Join(dir, "waits.php")
	writeFile(t, held, "<?php\n$f = fopen('"+lock+"', 'c'); flock($f, LOCK_EX); echo \"ready\\n\"; flush(); sleep(600);\n")
	writeFile(t, waits, "<?php\n$f = fopen('"+lock+"', 'c'); $s = str_repeat('x', 48 << 20); echo \"ready\\n\"; flush(); flock($f, LOCK_EX);\n")
	php := testphp.Stripped(t)
	holder := testphp.Start(t, php, held).PID
	blocked := testphp.Start(t, php, waits).PID
	loops := testphp.Start(t, php, testphp.Hang(t, "cpu.php-loop.php")).PID
	opt := Defaults()
	opt.For = 300 * time.Millisecond
	o := New()
	for name, look := range map[string]func(int) (*capture.Capture, error){
		"attach":  func(pid int) (*capture.Capture, error) { return o.Attach(context.Background(), pid, opt) },
		"dump":    func(pid int) (*capture.Capture, error) { return o.Dump(context.Background(), pid) },
		"no-stop": func(pid int) (*capture.Capture, error) { return o.Sample(context.Background(), pid) },
		"collect": func(pid int) (*capture.Capture, error) {
			w, err := o.Open(pid)
			if err != nil {
				return nil, err
			}
			defer w.Close()
			return w.Look(context.Background())
		},
	} {
		sleeps := testphp.Start(t, php, testphp.Hang(t, "sleep.php")).PID
		for _, c := range []struct {
			pid   int
			wchan string // a part of its name, which differs from kernel to kernel
			least int64
			times int
		}{
			{sleeps, "nanosleep", 4 << 20, 1}, // after that the kernel knows it no longer
			{blocked, "lock", 48 << 20, 5}, {loops, "", 4 << 20, 5},
		} {
			for range c.times {
				got, err := look(c.pid)
				if err != nil {
					t.Fatal(err)
				}
				fn, _ := got.Facts["proc.wchan"].(string)
				if c.wchan == "" && got.Facts["proc.wchan"] != nil || !strings.Contains(fn, c.wchan) {
					t.Errorf("%s: it waits in %v, not %q", name, got.Facts["proc.wchan"], c.wchan)
				}
				if st := got.Facts["proc.state"]; fn != "" && st != "S" {
					t.Errorf("%s: it waits in %s, and is in state %v", name, fn, st)
				}
				if n, ok := got.Facts["proc.rss"].(int64); !ok || n < c.least || n > c.least+64<<20 {
					t.Errorf("%s: it has %v bytes in memory", name, got.Facts["proc.rss"])
				}
			}
		}
		// The call that goes on is not called something else.
		if got, err := look(sleeps); err != nil || got.Facts["proc.wchan"] != nil && !strings.Contains(got.Facts["proc.wchan"].(string), "nanosleep") {
			t.Errorf("%s: it waits in %v, %v", name, got.Facts["proc.wchan"], err)
		}
	}
	if testphp.State(t, holder) != "S" {
		t.Error("the lock's holder is gone")
	}
}

// Since 8.4 PHP calls some functions without a frame; the stack shows them.
func TestFunctionsWithoutAFrameAreShown(t *testing.T) {
	php := ""
	for _, dir := range testphp.Builds(t) {
		if filepath.Base(dir) == "8.4-zts" || filepath.Base(dir) == "8.4-nts" {
			php = filepath.Join(dir, "bin/php")
		}
	}
	if php == "" {
		testphp.Missing(t, "a PHP 8.4")
	}
	w := testphp.Start(t, php, testphp.Hang(t, "cpu.linear-search.php"))
	opt := Defaults()
	opt.For = 800 * time.Millisecond
	c, err := New().Attach(context.Background(), w.PID, opt)
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for i := range c.Stacks {
		for j, f := range c.Stacks[i].Frames {
			if f.Kind != stack.PHP {
				continue
			}
			if f.Internal && f.Function == "in_array" {
				shown++
				if u := c.Stacks[i].Frames[j+1]; u.Function != "unique" || u.Internal {
					t.Errorf("in_array was called by %+v", u)
				}
			}
			break
		}
	}
	if shown == 0 {
		t.Errorf("in_array is in none of %d stacks", len(c.Stacks))
	}
}
