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
			m, ok := mustCompile(t, c.pattern, false).run(fs, view(fs, Native), false)
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
			m, ok := mustCompile(t, c.pattern, true).run(fs, view(fs, PHP), false)
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
	m, ok := mustCompile(t, "a as=one; 0-1 b; x as=two", false).run(fs, view(fs, Native), false)
	if !ok || m.captures["one"] != 0 || m.captures["two"] != 1 {
		t.Errorf("%v %v", ok, m.captures)
	}
}

// reference matches by trying everything, which is right and slow. It returns
// the match with the least start, and of those the fewest unknowns.
func reference(p *pattern, fs []Frame, open bool) (m match, ok bool) {
	root := p.elements[len(p.elements)-1].root && !open
	var from func(e, taken, at int) (int, bool)
	from = func(e, taken, at int) (best int, found bool) {
		better := func(u int, ok bool) {
			if ok && (!found || u < best) {
				best, found = u, true
			}
		}
		if e == len(p.elements) {
			return 0, !root || at == len(fs)
		}
		el := &p.elements[e]
		if taken >= el.min {
			better(from(e+1, 0, at))
		}
		if at < len(fs) && (el.max == unbounded || taken < el.max) {
			if ok, unk := el.test(&fs[at]); ok {
				u, ok := from(e, taken+1, at+1)
				if unk {
					u++
				}
				better(u, ok)
			}
		}
		return best, found
	}
	for start := 0; start <= len(fs); start++ {
		if u, ok := from(0, 0, start); ok {
			return match{start: start, unknowns: u}, true
		}
		if p.elements[0].leaf {
			break
		}
	}
	return match{}, false
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
				pick("a", "b", "a|b", "*", "c", "any mod=php*")+pick("", "", " unk"))
		}
		var stack []string
		for range rnd.IntN(7) {
			stack = append(stack, pick("a", "a", "b", "c", "?", "?libc"))
		}
		p, bad := parsePattern(strings.Join(lines, "\n"), false)
		if len(bad) > 0 {
			continue
		}
		fs, open := frames(strings.Join(stack, " ")), rnd.IntN(4) == 0
		m, ok := compile(p).run(fs, view(fs, Native), open)
		best, want := reference(p, fs, open)
		if ok {
			matched++
		}
		if ok != want || m.start != best.start || m.unknowns != best.unknowns {
			t.Fatalf("%q on %q (open %v): %v %+v, want %v %+v", lines, stack, open, ok, m, want, best)
		}
	}
	if matched < cases/10 {
		t.Errorf("only %d of %d matched: the test tells little", matched, cases)
	}
}

// FuzzMatch compares the automaton with the reference on small patterns.
func FuzzMatch(f *testing.F) {
	f.Add("leaf a\n0-2 b unk\nc", "a b ? c", false)
	f.Add("opt a\n1-* b\nroot gap 0-2", "b b c", true)
	f.Add("gap 1-2\na|b* inl=only\n0-* *", "x ~a ? ~bb", false)
	f.Fuzz(func(t *testing.T, text, stack string, open bool) {
		if len(text) > 80 || len(stack) > 30 {
			return
		}
		p, bad := parsePattern(text, false)
		if len(bad) > 0 {
			return
		}
		fs := frames(stack)
		if len(fs) > 8 || len(p.elements) > 5 {
			return
		}
		for i := range fs {
			fs[i].Kind = Native
		}
		for _, e := range p.elements {
			if max(e.min, e.max) > 9 {
				return
			}
		}
		m, ok := compile(p).run(fs, view(fs, Native), open)
		best, want := reference(p, fs, open)
		if ok != want || m.start != best.start || m.unknowns != best.unknowns {
			t.Errorf("%q on %q (open %v): %v %+v, want %v %+v", text, stack, open, ok, m, want, best)
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
	if _, ok := g.run(fs, view(fs, Native), false); ok {
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
