package observe

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

func TestVariablesAreNamedByTheirPlace(t *testing.T) {
	for in, want := range map[string]Var{
		"row@x.php:6": {"row", "x.php", 6}, "$row@app/x.php:6": {"row", "app/x.php", 6}, "row@x.php": {"row", "x.php", 0}, "row@x.php:*": {"row", "x.php", 0},
		"_r2@/srv/a b/x.php:1": {"_r2", "/srv/a b/x.php", 1}, "été@./x.php": {"été", "x.php", 0}, "a@b@c.php:2": {"a", "b@c.php", 2}, "x@a:b.php:3": {"x", "a:b.php", 3},
		"this@x.php": {"this", "x.php", 0},
	} {
		if got, err := ParseVar(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "row", "@x.php", "$@x.php:1", "row@", "row@:6", "row@x.php:", "row@x.php:0", "row@x.php:-1", "row@x.php:x", "row@x.php:6:",
		"2row@x.php:6", "a-b@x.php:6", "$$a@x.php", "row@dir/", "row@x.php:99999999999999999999", "row\n@x.php"} {
		if got, err := ParseVar(in); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, tt := range []struct {
		file, path string
		want       bool
	}{{"x.php", "/srv/x.php", true}, {"x.php", "/srv/ax.php", false}, {"app/x.php", "/srv/app/x.php", true}, {"app/x.php", "/srv/myapp/x.php", false},
		{"/srv/x.php", "/srv/x.php", true}, {"/x.php", "/srv/x.php", false}, {"x.php", "x.php", true}, {"x.php", "", false}} {
		if got := (Var{File: tt.file}).inFile(tt.path); got != tt.want {
			t.Errorf("%s in %s: %v", tt.file, tt.path, got)
		}
	}
}

// values finds the values of a function's innermost frame.
func values(c *capture.Capture, function string) map[string]string {
	out := make(map[string]string)
	for _, s := range c.Stacks {
		for _, f := range s.Frames {
			if f.Kind == stack.PHP && f.Function == function && len(out) == 0 {
				for _, v := range f.Values {
					out[v.Name] = v.Type + " " + v.Value
				}
			}
		}
	}
	return out
}

const counting = `<?php
function work(int $limit, string $password)
{
    $text = '';
    $list = [];
    $left = $limit;
    $mode = 'fast';
    $flip = 1;
    echo "ready\n";
    for ($i = 0; $i < $limit; $i++) {
        $text .= str_repeat('x', 1000);
        $list[$i % 5000] = $i;
        $left--;
        $flip = -$flip;
        $junk = str_repeat('y', (1 << 21) + 4096 * ($i % 3)); // line 15: maps memory, and gives it back
        usleep(300);
    }
}
work(1 << 40, 'hunter two');
`

func TestVariablesAreWatchedOverTime(t *testing.T) {
	for name, php := range map[string]func(testing.TB) string{"stripped": testphp.Stripped, "dwarf": testphp.DWARF} {
		t.Run(name, func(t *testing.T) {
			script := t.TempDir() + "/count.php"
			writeFile(t, script, counting)
			w := testphp.Start(t, php(t), script)
			o := New()
			o.Look.Values = name == "dwarf"
			for _, s := range []string{"i@count.php:15", "$left@count.php", "mode@" + script + ":*", "text@count.php", "list@count.php:15", "flip@count.php:15",
				"password@count.php", "nosuch@count.php", "i@ount.php", "i@count.php:3"} {
				v, err := ParseVar(s)
				if err != nil {
					t.Fatal(err)
				}
				o.Look.Vars = append(o.Look.Vars, v)
			}
			opt := Defaults()
			opt.For, opt.Stops = time.Second, 60
			c, err := o.Attach(context.Background(), w.PID, opt)
			if err != nil {
				t.Fatal(err)
			}
			events := c.Observation.Stops + c.Observation.Samples
			got := make(map[string]capture.Variable)
			for _, v := range c.Variables {
				got[v.Var+"@"+v.At] = v
				t.Logf("%+v", v)
			}
			for at, trend := range map[string]string{"i@count.php:15": "grows", "left@count.php": "shrinks", "mode@" + script: "constant", "text@count.php": "grows",
				"list@count.php:15": "grows", "flip@count.php:15": "varies", "password@count.php": "", "nosuch@count.php": "", "i@ount.php": "", "i@count.php:3": ""} {
				v, ok := got[at]
				if !ok || v.Trend != trend {
					t.Errorf("%s: %+v, want %q", at, v, trend)
				}
				if missing := strings.HasPrefix(at, "nosuch") || at == "i@ount.php" || at == "i@count.php:3"; missing != (v.Seen == 0) || v.Seen > events {
					t.Errorf("%s: seen %d of %d", at, v.Seen, events)
				}
			}
			if v := got["password@count.php"]; v.First != "[redacted]" || v.Last != "[redacted]" || v.Distinct != 0 || v.Seen < 2 {
				t.Errorf("the secret: %+v", v)
			}
			if v := got["i@count.php:15"]; v.Distinct < v.Seen/4 || v.Seen < events/2 {
				t.Errorf("%+v of %d events", v, events)
			}
			vs := values(c, "work")
			if !o.Look.Values {
				if len(vs) != 0 {
					t.Errorf("values that nobody asked for: %v", vs)
				}
				return
			}
			if n := len(c.Stacks); n > 20 {
				t.Errorf("%d stacks of one loop", n)
			}
			// Those of the last event.
			last := c.Stacks[c.Events[len(c.Events)-1].Stack]
			if now := values(&capture.Capture{Stacks: []stack.Stack{last}}, "work")["$left"]; now != "int "+got["left@count.php"].Last {
				t.Errorf("$left is %s in the last stack, and was last %s", now, got["left@count.php"].Last)
			}
			if d := cmp.Diff([]string{"int 1099511627776", "string [redacted]", `string "fast"`}, []string{vs["$limit"], vs["$password"], vs["$mode"]}); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestADumpHasValuesOnlyWhenAsked(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "recursion50.php"))
	for _, asked := range []bool{false, true} {
		o := New()
		o.Look.Values = asked
		c, err := o.Dump(context.Background(), w.PID)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range c.Stacks[0].Frames {
			if f.Kind == stack.PHP && (f.Values != nil) != asked {
				t.Errorf("asked %v: %+v", asked, f)
			}
		}
		t.Logf("asked %v: paused %d µs", asked, c.Observation.PausedUSMax)
	}
}
