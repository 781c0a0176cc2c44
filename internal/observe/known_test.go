package observe

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/target"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// sameButForPHP grows strings in places that differ as little as can be: the same
// native frames at the same addresses, and only PHP's functions or lines are
// others. Functions come and go, so that their memory is used again.
const sameButForPHP = `<?php
class A { function grow($s) { $s .= str_repeat('a', 3000000); $s .= 'b'; return $s . 'c'; } }
class B { function grow($s) { $s .= str_repeat('a', 3000000); $s .= 'b'; return $s . 'c'; } }
function one($s) { for ($i = 0; $i < 20; $i++) { $s .= str_repeat('x', 40960); } return 1; }
function two($s) { for ($i = 0; $i < 20; $i++) { $s .= str_repeat('x', 40960); } return 2; }
function lines($s) {
    for ($i = 0; $i < 20; $i++) {
        $s .= str_repeat('x', 8192);
        $s .= str_repeat('x', 8192);
        $s .= str_repeat('x', 8192);
    }
    return $s;
}
function deep($n, $s) { return $n ? deep($n - 1, $s) : one($s); }
function fresh($n, $s) {
    $f = eval("return function (\$s) { for (\$i = 0; \$i < 9; \$i++) {" . str_repeat("\n", $n % 3) . " \$s .= str_repeat('x', 8192); } return \$s; };");
    return $f($s);
}
function gen($s) { for ($i = 0; $i < 9; $i++) { $s .= str_repeat('x', 8192); yield $i; } }
$big = str_repeat('s', 3000000);
fwrite(STDOUT, "ready\n");
for ($n = 0; ; $n++) {
    one($big . $n); two($big . $n); lines($big . $n);
    (new A)->grow($big); (new B)->grow($big);
    deep($n % 7, $big . $n); fresh($n, $big . $n);
    foreach (gen($big . $n) as $x) { }
    $pair = [2, 1];
    usort($pair, function ($a, $b) use ($big, $n) { return strlen(lines($big . $n)); });
}
`

// TestRecognisedStacksAreThoseThatReadingFinds has each stop that was recognised
// read as well: both must come to the same stack, always.
func TestRecognisedStacksAreThoseThatReadingFinds(t *testing.T) {
	o := New()
	for _, b := range testphp.AllBuilds(t) {
		t.Run(b.Name, func(t *testing.T) {
			script := filepath.Join(t.TempDir(), "grow.php")
			writeFile(t, script, sameButForPHP)
			w := testphp.StartCommand(t, slices.Concat([]string{b.PHP(t)}, b.Args, []string{"-d", "memory_limit=-1", script})...)
			live, err := target.Open(w.PID)
			if err != nil {
				t.Fatal(err)
			}
			defer live.Close()
			s, err := o.open(live)
			if err != nil {
				t.Fatal(err)
			}
			opt := Defaults()
			opt.For, opt.Stops, opt.MaxPause, opt.SampleEvery = 20*time.Second, 6000, 0, 10*time.Millisecond
			popt, err := s.prepare(opt)
			if err != nil {
				t.Fatal(err)
			}
			right, wrong := 0, 0
			s.pipe.audit = func(taken, is int) {
				if taken == is {
					right++
				} else if wrong++; wrong < 4 {
					t.Errorf("taken for\n%sit is\n%s", outline(s.pipe.stacks.stacks[taken].Frames), outline(s.pipe.stacks.stacks[is].Frames))
				}
			}
			res, err := ptrace.Observe(t.Context(), w.PID, popt, s.pipe)
			c, err := s.finish(res, err)
			if err != nil {
				t.Fatal(err)
			}
			stops := 0
			for i, e := range c.Events {
				if i > 0 && e.At < c.Events[i-1].At {
					t.Fatalf("event %d is out of order", i)
				}
				if e.Symbol != "" {
					stops++
				}
			}
			if stops != c.Observation.Stops {
				t.Errorf("%d stops among the events, %d counted", stops, c.Observation.Stops)
			}
			t.Logf("%d stops, %d stacks, recognised rightly %d, wrongly %d", c.Observation.Stops, len(c.Stacks), right, wrong)
			// musl's code has no call-frame information, and a walk that has to
			// guess is never taken for another.
			if guessed := strings.Contains(b.Name, "musl"); !guessed && right < stops/2 || guessed && right > 0 {
				t.Errorf("%d of %d stops were recognised", right, stops)
			}
		})
	}
}
