package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// frames reads a stack for tests: names leaf first, "?" unknown, "?libc" unknown
// in libc, "~name" inlined, "php:name", "php:Class::name" and "php!name" for
// internal functions.
func frames(text string) []Frame {
	var out []Frame
	for i, w := range strings.Fields(text) {
		f := Frame{Module: "php8.2", Name: w, Line: i + 1}
		switch {
		case w == "?":
			f.Name = ""
		case w == "?libc":
			f.Name, f.Module = "", "libc.so.6"
		case strings.HasPrefix(w, "~"):
			f.Name, f.Inlined = w[1:], true
		case strings.HasPrefix(w, "php!"):
			f = Frame{Kind: PHP, Name: w[4:], Internal: true}
		case strings.HasPrefix(w, "php:"):
			f = Frame{Kind: PHP, Name: w[4:], File: "/srv/" + w[4:] + ".php", Line: i + 1}
			if class, method, ok := strings.Cut(f.Name, "::"); ok {
				f.Class, f.Name = class, method
			}
		}
		out = append(out, f)
	}
	return out
}

func mustCompile(t testing.TB, text string, php bool) *program {
	t.Helper()
	p, bad := parsePattern(strings.ReplaceAll(text, "; ", "\n"), php)
	if len(bad) > 0 {
		t.Fatalf("%q: %v", text, bad)
	}
	return compile(p)
}

func TestANativePatternSeesNativeFrames(t *testing.T) {
	const concat = "mremap ? concat_function ? execute_ex php:f php:main zend_execute main"
	for _, c := range []struct {
		name, pattern, stack string
		want                 string // "no", or the number of unknown frames
	}{
		{"a line is a frame", "leaf mremap; zend_mm_realloc_huge; concat_function", "mremap zend_mm_realloc_huge concat_function", "0"},
		{"a frame between two lines", "leaf mremap; concat_function", "mremap zend_mm_realloc_huge concat_function", "no"},
		{"leaf is the first frame", "leaf concat_function", concat, "no"},
		{"without leaf it starts anywhere", "concat_function", concat, "0"},
		{"without root it need not reach it", "leaf mremap", concat, "0"},
		{"root is the last frame", "root main", concat, "0"},
		{"root is not any other", "root zend_execute", concat, "no"},
		{"PHP frames are no native frames", "execute_ex; zend_execute", concat, "0"},
		{"a gap within its bounds", "leaf mremap; gap 0-3; execute_ex", concat, "0"},
		{"a gap that is too narrow", "leaf mremap; gap 0-2; execute_ex", concat, "no"},
		{"a gap that must take more", "leaf mremap; gap 4-9; execute_ex", concat, "no"},
		{"a gap without end", "leaf mremap; gap 0-*; main", concat, "0"},
		{"unk takes an unknown frame", "leaf mremap; zend_mm_realloc_huge unk; concat_function", concat, "1"},
		{"without unk it does not", "leaf mremap; zend_mm_realloc_huge; concat_function", concat, "no"},
		{"unk never takes one of libc", "leaf mremap; x unk; concat_function", "mremap ?libc concat_function", "no"},
		{"unk takes no other name", "leaf mremap; x unk; concat_function", "mremap y concat_function", "no"},
		{"a known way is better than an unknown one", "leaf m; 0-1 x unk; 0-2 any mod=php*; z", "m ? z", "0"},
		{"every unknown frame is counted", "leaf m; 0-3 x unk; z", "m ? x ? z", "2"},
		{"opt takes none", "leaf mremap; opt x; concat_function", "mremap concat_function", "0"},
		{"opt takes one", "leaf mremap; opt x; concat_function", "mremap x concat_function", "0"},
		{"opt takes no two", "leaf mremap; opt x; concat_function", "mremap x x concat_function", "no"},
		{"M-N lines of different names", "leaf m; 1-3 a|b; z", "m a b a z", "0"},
		{"M-N too many", "leaf m; 1-3 a|b; z", "m a b a b z", "no"},
		{"1-* needs one", "leaf m; 1-* a; z", "m z", "no"},
		{"1-* takes many", "leaf m; 1-* a; z", "m a a a a a a z", "0"},
		{"a name matches whole", "leaf mremap_chunk", "mremap_chunk2", "no"},
		{"a glob", "leaf zend_mm_*", "zend_mm_realloc_huge", "0"},
		{"names are canonical", "leaf __GI___mremap", "mremap", "0"},
		{"a name by its clone suffix", "leaf zend_string_extend.part.0", "zend_string_extend", "0"},
		{"an unknown frame has no name for a glob", "leaf *", "?", "no"},
		{"inl=only wants an inlined frame", "leaf a inl=only", "a", "no"},
		{"inl=only takes one", "leaf a inl=only", "~a", "0"},
		{"inl=never wants none", "leaf a inl=never", "~a", "no"},
		{"mod= of a named frame", "leaf a mod=php*", "a", "0"},
		{"mod= of another module", "leaf a mod=libcurl*", "a", "no"},
		{"any takes what a module has", "leaf any mod=php*", "?", "0"},
		{"line= in a range", "leaf a line=1-3", "a", "0"},
		{"line= outside", "leaf a line=2-3", "a", "no"},
		{"an empty stack", "leaf a", "", "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := frames(c.stack)
			m, ok := mustCompile(t, c.pattern, false).run(fs, view(fs, Native))
			got := "no"
			if ok {
				got = fmt.Sprint(m.unknowns)
			}
			if got != c.want {
				t.Errorf("%q on %q: %s, want %s", c.pattern, c.stack, got, c.want)
			}
		})
	}
}

func TestAPHPPatternSeesPHPFrames(t *testing.T) {
	const stack = "memcpy zif_usort php!usort execute_ex php:App\\Report::build execute_ex php:{main} main"
	for _, c := range []struct {
		name, pattern string
		want          string // "no", or what "as" captured
	}{
		{"user is the first userland frame", "user as=x", "build"},
		{"leaf user is not under an internal function", "leaf user as=x", "no"},
		{"leaf internal by name", "leaf internal usort; user as=x", "build"},
		{"leaf internal of another name", "leaf internal uasort; user as=x", "no"},
		{"names compare without case", "leaf internal USORT as=x", "usort"},
		{"class::method", `app\report::Build as=x`, "build"},
		{"a method by its own name", "build as=x", "build"},
		{"another class", `App\Other::build as=x`, "no"},
		{"any method of a class", `App\Report::* as=x`, "build"},
		{"file=", "user file=*/Report::build.php as=x", "build"},
		{"root", "root {main} as=x", "{main}"},
		{"a gap", "leaf internal usort; gap 0-5; root user as=x", "{main}"},
		{"line= of a frame", "user line=5 as=x", "build"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := frames(stack)
			for i := range fs {
				if fs[i].Kind == PHP && fs[i].Name == "build" {
					fs[i].File = "/srv/Report::build.php"
				}
			}
			m, ok := mustCompile(t, c.pattern, true).run(fs, view(fs, PHP))
			got := "no"
			if i, captured := m.captures["x"]; ok && captured {
				got = fs[i].Name
			}
			if got != c.want {
				t.Errorf("%q: %s, want %s", c.pattern, got, c.want)
			}
		})
	}
}

func TestTheMatchNearestToTheLeafIsTaken(t *testing.T) {
	fs := frames("a x a b x a")
	m, ok := mustCompile(t, "a as=one; 0-1 b; x as=two", false).run(fs, view(fs, Native))
	if !ok || m.captures["one"] != 0 || m.captures["two"] != 1 {
		t.Errorf("%v %v", ok, m.captures)
	}
}

// naiveMaybe tries every way to take all frames from some start on, and more
// than none.
func naiveMaybe(p *pattern, fs []Frame) bool {
	leaf, root := p.elements[0].leaf, p.elements[len(p.elements)-1].root
	if len(fs) == 0 || root && !leaf {
		return true
	}
	var from func(e, taken, at int) bool
	from = func(e, taken, at int) bool {
		if at == len(fs) {
			return true
		}
		if e == len(p.elements) {
			return false
		}
		el := &p.elements[e]
		if taken >= el.min && from(e+1, 0, at) {
			return true
		}
		if el.max == unbounded || taken < el.max {
			if ok, _ := el.test(&fs[at]); ok {
				return from(e, taken+1, at+1)
			}
		}
		return false
	}
	for start := range fs {
		if from(0, 0, start) {
			return true
		}
		if leaf {
			return false
		}
	}
	return false
}

// agree compares every way to match a pattern with trying everything: the
// automaton that keeps what it took, the one of bits with its index, and
// whether more frames could make a match.
func agree(t testing.TB, p *pattern, fs []Frame) (matched bool) {
	t.Helper()
	kind := Native
	if p.php {
		kind = PHP
	}
	best, want := naive(p, fs)
	g := compile(p)
	m, ok := g.run(fs, view(fs, kind))
	if ok != want || m.start != best.start || m.unknowns != best.unknowns {
		t.Fatalf("%s on %v: %v %+v, want %v %+v", p, names(fs), ok, m, want, best)
	}
	// The stack before makes for a neighbour.
	o := &Observation{Stacks: []Stack{{Frames: fs}, {}, {Frames: fs}}}
	s := newSearch(newMatcher([]*Rule{{alts: []*alternative{{prg: g}}}}), intern(o), kind, func(*program) bool { return true })
	s.run()
	if _, empty := naive(p, nil); slices.Contains(s.hits[0], 0) != want || slices.Contains(s.hits[0], 2) != want || slices.Contains(s.hits[0], 1) != empty {
		t.Fatalf("%s on %v: hits %v, want %v", p, names(fs), s.hits[0], want)
	}
	if got, want := g.maybe(fs, view(fs, kind)), naiveMaybe(p, fs); got != want {
		t.Fatalf("%s on %v: maybe %v, want %v", p, names(fs), got, want)
	}
	return want
}

func (p *pattern) String() string {
	var lines []string
	for i := range p.elements {
		lines = append(lines, p.elements[i].text)
	}
	return fmt.Sprintf("%q", lines)
}

func names(fs []Frame) (out []string) {
	for i := range fs {
		out = append(out, describe(fs[i]))
	}
	return out
}

// TestTheAutomatonAgreesWithTryingEverything compares both on random patterns
// and stacks over few names, so that most of them nearly match.
func TestTheAutomatonAgreesWithTryingEverything(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	matched := 0
	const cases = 50_000
	for range cases {
		var lines []string
		n := 1 + rnd.IntN(5)
		for i := range n {
			anchor := ""
			if i == 0 && rnd.IntN(2) == 0 {
				anchor = "leaf "
			} else if i == n-1 && rnd.IntN(3) == 0 {
				anchor = "root "
			}
			lines = append(lines, anchor+pick("", "", "opt ", "0-2 ", "1-3 ", "1-* ", "0-* ")+
				pick("a", "b", "a|b", "*", "c", "c*", "any mod=php*", "a mod=php*", "c inl=never")+pick("", "", " unk"))
		}
		var stack []string
		for range rnd.IntN(7) {
			stack = append(stack, pick("a", "a", "b", "c", "?", "?libc"))
		}
		p, bad := parsePattern(strings.Join(lines, "\n"), false)
		if len(bad) > 0 {
			continue
		}
		if agree(t, p, frames(strings.Join(stack, " "))) {
			matched++
		}
	}
	if matched < cases/10 {
		t.Errorf("only %d of %d matched: the test tells little", matched, cases)
	}
}

// FuzzMatch compares the automatons with trying everything on small patterns.
func FuzzMatch(f *testing.F) {
	f.Add("leaf a\n0-2 b unk\nc", "a b ? c", false)
	f.Add("opt a\n1-* b\nroot gap 0-2", "b b c", false)
	f.Add("gap 1-2\na|b* inl=only\n0-* *", "x ~a ? ~bb", false)
	f.Add("leaf internal a|b::*\n0-2 user file=*.php\nroot c line=3", "php!a php:B::x php:c", true)
	f.Fuzz(func(t *testing.T, text, stack string, php bool) {
		if len(text) > 80 || len(stack) > 30 {
			return
		}
		p, bad := parsePattern(text, php)
		if len(bad) > 0 {
			return
		}
		fs := frames(stack)
		if len(fs) > 8 || len(p.elements) > 5 {
			return
		}
		for i := range fs {
			if fs[i].Kind = Native; php {
				fs[i].Kind = PHP
			}
		}
		for _, e := range p.elements {
			if max(e.min, e.max) > 9 {
				return
			}
		}
		agree(t, p, fs)
	})
}

// FuzzFrameLines holds that any text gives a pattern or problems that lie in
// it, and that what a pattern says of itself is read the same again.
func FuzzFrameLines(f *testing.F) {
	for _, text := range []string{"leaf mremap\n0-8 zend_mm_*|_erealloc unk\nopt x\nconcat_function as=c", "gap 0-5\nany mod=php* line=3-*", "leaf internal strlen\nuser file=*/x.php as=site\nApp\\A::b"} {
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text string, php bool) {
		p, bad := parsePattern(text, php)
		lines := strings.Count(text, "\n") + 1
		for at := range bad {
			if at < 0 || at >= lines {
				t.Fatalf("a problem on line %d of %d", at, lines)
			}
		}
		if len(bad) > 0 {
			return
		}
		var again []string
		for i := range p.elements {
			e := &p.elements[i]
			for _, w := range e.words {
				if !strings.HasPrefix(e.text[w.off:], w.text) {
					t.Fatalf("%q is not at %d of %q", w.text, w.off, e.text)
				}
			}
			again = append(again, e.text)
		}
		q, bad := parsePattern(strings.Join(again, "\n"), php)
		if len(bad) > 0 || q.String() != p.String() {
			t.Fatalf("%q was read as %v, and that as %v (%v)", text, p, q, bad)
		}
	})
}

// TestMatchingIsLinear lets a pattern that ruins a backtracking matcher meet a
// long stack. Each frame may visit each state once.
func TestMatchingIsLinear(t *testing.T) {
	text := strings.Repeat("0-100 a|b unk\n", 15) + "c"
	g := mustCompile(t, text, false)
	fs := frames(strings.Repeat("a ", 4000))
	began := time.Now()
	if _, ok := g.run(fs, view(fs, Native)); ok {
		t.Error("it matched")
	}
	// 4,000 frames times 1,501 states: some 100 ms. Backtracking would never end.
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it took %v", d)
	} else {
		t.Log(d)
	}
}

func TestGlobsMatchWholeNames(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"?", "", false},
		{"a*c", "abbc", true}, {"a*c", "abbcd", false}, {"*a*b*", "xxaxxbxx", true}, {"*a*b", "ba", false},
		{"a?c", "abc", true}, {"*/concat.php:6", "/srv/app/concat.php:6", true}, {`App\*`, `App\Report`, true},
		{"[vdso]", "[vdso]", true}, {"[a]", "a", false}, {"*ab", "aab", true}, {"a**", "a", true},
	} {
		if got := glob(c.pattern, c.s); got != c.want {
			t.Errorf("glob(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func TestFrameLinesAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "no frame lines"},
		{"# a comment", "no frame lines"},
		{"gap 0-3", "would match everything"},
		{"opt a", "would match everything"},
		{"a\nleaf b", "leaf can only"},
		{"root a\nb", "root can only"},
		{"3-1 a", "takes no frame"},
		{"0-999 a", "at most 256"},
		{strings.Repeat("0-256 a\n", 20) + "b", "more than"},
		{"a||b", "empty name"},
		{"a as", `"as" is no attribute`},
		{"a as=1x", "can't be a name"},
		{"a line=x", "line=x"},
		{"a line=5-2", "line=5-2"},
		{"leaf", "a name is missing"},
		{"a mod=", "mod= is empty"},
		{"#0  0x00007f00 in __GI___mremap (addr=0x7f) at x.c:1\nconcat_function", "of a line of a backtrace keep the name alone: mremap"},
		{"leaf mremap\n  #1 0x01 in ?? ()\na", "frames without a name are gap M-N"},
		{"leaf mremap\n#1  0x0000557fda6a6ccd execute_ex - /usr/bin/php8.2", "keep the name alone: execute_ex"},
		{"a class=x", "no such attribute"},
	} {
		_, bad := parsePattern(c.text, false)
		var all []string
		for _, err := range bad {
			all = append(all, err.Error())
		}
		if !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, c.want) }) {
			t.Errorf("%q: %q, want %q", c.text, all, c.want)
		}
	}
}
