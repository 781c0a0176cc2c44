package rules

import (
	"strings"
	"testing"
)

func TestExplainSaysWhereEachAlternativeStopped(t *testing.T) {
	o := observe(
		seen{"mremap zend_mm_chunk_extend zend_mm_realloc_huge zend_hash_packed_grow execute_ex php!strlen php:App\\Report::build", 3, 0},
		seen{"mmap other execute_ex php:f", 2, 0})
	for _, c := range []struct{ name, match, want string }{
		{"the line and the frame", `{stack: "leaf mremap\n0-8 zend_mm_*\nopt zend_string_extend\nconcat_function"}`, "stack line 4 wants concat_function, frame #3 is zend_hash_packed_grow"},
		{"the furthest of several stacks", `{stack: {a: "leaf mremap|mmap\nother\nconcat_function"}}`, "a line 3 wants concat_function, frame #2 is execute_ex"},
		{"the first line", `{stack: "leaf poll"}`, "stack line 1 wants leaf poll, frame #0 is mremap"},
		{"a line that no frame of the stack meets", `{stack: "zend_sort"}`, "stack line 1 wants zend_sort, frame #0 is mremap"},
		{"the end of the stack", `{stack: "execute_ex\nzend_execute"}`, "stack line 2 wants zend_execute, the stack ends"},
		{"a root that is none", `{stack: "leaf mmap\nroot other"}`, "stack line 2 wants root other, frame #2 is execute_ex"},
		{"a PHP line", `{php: "leaf internal strlen\nuser f"}`, `php line 2 wants user f, PHP frame #1 is App\Report::build() at /srv/App\Report::build.php:7`},
		{"a match of some stacks", `{stack: "leaf mmap\nother"}`, "stack line 1 wants leaf mmap, frame #0 is mremap; 2 of 5 match"},
		{"a match of all", `{stack: "execute_ex"}`, "stack matches 5 of 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := mustLoad(t, rule("a.b", c.match, "")).Explain("a.b", o, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := e.Match.Patterns[0].String(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestExplainShowsValuesScoreAndNeighbours(t *testing.T) {
	o := observe(seen{"mremap ? concat_function execute_ex php:f", 4, 0})
	o.Facts["proc.cpu_pct"] = 60.0
	s := mustLoad(t,
		rule("a.b", `{all: [{in: stops, stack: "leaf mremap\nx unk\nconcat_function", php: user as=site}, {expr: "proc.cpu_pct > 50.0 && stack.depth == 5"}]}`,
			"bind: {d: stack.depth, w: pool.workers}\nscore: {base: 0.6, plus: [{add: 0.2, if: proc.cpu_pct > 50.0}, {add: 0.1, if: pool.workers > 1}, {add: 0.1, if: stack.depth > 9}], per_unknown: -0.1}"),
		rule("a.match", "{stack: leaf mremap}", ""), rule("a.half", "{all: [{stack: leaf mremap}, {expr: stack.depth > 9}]}", ""), rule("a.far", "{stack: leaf poll}", ""))
	e, err := s.Explain("a.b", o, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if e.Verdict != Match || !e.Reported || e.Finding.Confidence != 0.7 {
		t.Errorf("%v %v %+v", e.Verdict, e.Reported, e.Finding)
	}
	values := func(vs []Value) string {
		var out []string
		for _, v := range vs {
			out = append(out, v.Name+"="+v.Value+strings.SplitN(v.Missing, " ", 2)[0])
		}
		return strings.Join(out, " ")
	}
	if got := values(e.Match.Of[1].Values); got != "proc.cpu_pct=60 stack.depth=5" {
		t.Error(got)
	}
	if got := values(e.Bind); got != "d=5 w=pool.workers" {
		t.Error(got)
	}
	if got := values(e.Score); got != "base=0.60 proc.cpu_pct > 50.0=+0.20 pool.workers > 1=pool.workers unknown frames=-0.10" {
		t.Error(got)
	}
	var near []string
	for _, n := range e.Nearest {
		near = append(near, n.Rule.ID)
	}
	if got := strings.Join(near, " "); got != "a.match a.half a.far" {
		t.Error(got)
	}
	if _, err := s.Explain("a.bb", o, Options{}); err == nil || err.Error() != "no rule is called a.bb (did you mean a.b?)" {
		t.Error(err)
	}
}

func TestProgressAgreesWithMatching(t *testing.T) {
	// On the way of a pattern that matches, every line is met: cutting the
	// stack anywhere names a line that is later the longer the stack.
	fs := frames("m a a b ? c d")
	g := mustCompile(t, "leaf m; 0-3 a; b; 0-2 x unk; c; d", false)
	last := -1
	for n := range len(fs) {
		p := g.progress(fs[:n], view(fs[:n], Native))
		if p.frame != -1 || p.element < last {
			t.Errorf("%d frames: %+v after line %d", n, p, last)
		}
		last = p.element
	}
}

func TestFramesAreWrittenAsInABacktrace(t *testing.T) {
	for _, c := range []struct {
		f    Frame
		want string
	}{
		{Frame{Name: "mremap", Module: "libc.so.6"}, "mremap"},
		{Frame{Module: "php8.2"}, "?? from php8.2"},
		{Frame{}, "??"},
		{Frame{Kind: PHP, Class: "A", Name: "f", File: "/a.php", Line: 7}, "A::f() at /a.php:7"},
	} {
		if got := frameText(&c.f); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
