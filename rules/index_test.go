package rules

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

// work is what matching all rules took: patterns tried, and frames looked at
// by automatons.
func work(t testing.TB, s *Set, o *Observation) (tried, stepped int) {
	t.Helper()
	x := s.evaluation(o)
	for _, r := range s.rules {
		r.match.eval(x)
	}
	for k := range x.search {
		for i := range x.search[k].progs {
			tried, stepped = tried+x.search[k].tried[i], stepped+x.search[k].stepped[i]
		}
	}
	return tried, stepped
}

func TestCostGrowsWithDistinctStacksAndNotWithStops(t *testing.T) {
	set, _ := Load(builtin.FS)
	many := func(stacks, stops int) *Observation {
		var ss []seen
		for i := range stacks {
			ss = append(ss, seen{fmt.Sprintf("mremap ? concat_function f%d execute_ex php:f%d php:main", i, i), stops, stops})
		}
		return observe(ss...)
	}
	tried, stepped := work(t, set, many(100, 1))
	if tried == 0 || stepped == 0 {
		t.Fatal("nothing was tried")
	}
	if a, b := work(t, set, many(100, 50)); a != tried || b != stepped {
		t.Errorf("with 50 times the stops: %d tried, %d frames; with one: %d, %d", a, b, tried, stepped)
	}
	if a, b := work(t, set, many(300, 1)); a != 3*tried || b != 3*stepped {
		t.Errorf("with 3 times the stacks: %d tried, %d frames; with one: %d, %d", a, b, tried, stepped)
	}
}

// TestNoInputMakesMatchingSuperLinear lets patterns that ruin backtracking
// meet ever longer stacks of what they like: an automaton looks at each frame
// once at most.
func TestNoInputMakesMatchingSuperLinear(t *testing.T) {
	for _, text := range []string{
		"0-* a\n0-* a\n0-* a\n0-* a\nb",
		"leaf " + strings.Repeat("0-20 a|b unk\n", 3) + "c",
		"a\ngap 0-20\na\ngap 0-20\na\nroot c",
		strings.Repeat("opt a\n", 40) + strings.Repeat("a\n", 20) + "c",
		strings.Repeat("0-200 a\n", 8) + "c", // too large for one word
		"1-* *a*a*a*a*b\nc",
	} {
		pattern := strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
		set := mustLoad(t, strings.Replace(rule("a.b", "MATCH", ""), "match: MATCH", "match:\n stack: |\n  "+pattern, 1))
		for _, n := range []int{100, 1000, 10_000} {
			// The c comes first, so that the index lets it pass.
			_, stepped := work(t, set, observe(seen{"c " + strings.Repeat("a ", n), 1, 0}))
			if stepped > n+1 {
				t.Errorf("%q looks at %d frames of %d", text, stepped, n+1)
			}
		}
	}
}

func TestTheIndexGoesByTheRarestName(t *testing.T) {
	set := mustLoad(t, rule("a.b", `{stack: "mremap|mmap\ngap 0-*\nrare|other\ngap 0-*\nexecute_ex"}`, ""))
	var ss []seen
	for i := range 100 {
		ss = append(ss, seen{fmt.Sprintf("mremap f%d execute_ex", i), 1, 0})
	}
	ss = append(ss, seen{"mremap rare execute_ex", 1, 0}, seen{"other rare", 1, 0})
	if tried, _ := work(t, set, observe(ss...)); tried != 2 {
		t.Errorf("%d stacks were tried, want the 2 with the rare name", tried)
	}
}

func TestATruncatedStackIsUndeterminedInTheMiddleOfAMatch(t *testing.T) {
	for _, c := range []struct {
		match, stack string
		want         Verdict
	}{
		{`{stack: "leaf mremap\nconcat_function"}`, "mremap", Undetermined},
		{`{stack: "leaf mremap\nconcat_function"}`, "mremap other", NoMatch},
		{`{stack: "leaf mremap\nconcat_function"}`, "mmap", NoMatch},
		{`{stack: "leaf mremap\ngap 0-5\nconcat_function"}`, "mremap other", Undetermined},
		{`{stack: "concat_function\nexecute_ex"}`, "mremap concat_function", Undetermined},
		{`{stack: "concat_function\nexecute_ex"}`, "mremap concat_function x", NoMatch},
		{`{stack: "root main"}`, "mremap concat_function", Undetermined},
		{`{stack: "leaf mremap", php: user}`, "mremap", Undetermined},
	} {
		o := observe(seen{c.stack, 1, 0})
		o.Stacks[0].Truncated = true
		if res := evaluate(t, mustLoad(t, rule("a.b", c.match, "")), o).Results[0]; res.Verdict != c.want {
			t.Errorf("%s on %s…: %v, want %v", c.match, c.stack, res.Verdict, c.want)
		}
	}
}

func TestASetMayBeUsedByManyAtOnce(t *testing.T) {
	set, _ := Load(builtin.FS)
	o := observe(seen{"mremap ? concat_function execute_ex php:f php:main", 9, 1}, seen{"mmap zend_hash_find execute_ex php:g", 1, 1})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				if _, err := set.Evaluate(o, Options{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// TestManyNamesTakeBoundedMemory lets every stack have names of its own, as a
// hostile capture may.
func TestManyNamesTakeBoundedMemory(t *testing.T) {
	var rules []string
	for i := range 40 {
		rules = append(rules, rule(fmt.Sprintf("a.r%d", i), fmt.Sprintf(`{stack: "leaf mremap\n0-* z*|f%d*\nexecute_ex"}`, i), ""))
	}
	set := mustLoad(t, rules...)
	var ss []seen
	for i := range 3000 {
		ss = append(ss, seen{fmt.Sprintf("mremap f%d_a f%d_b f%d_c execute_ex", i, i, i), 1, 0})
	}
	x := set.evaluation(observe(ss...))
	spent := 0
	for _, row := range x.search[Native].rows {
		spent += len(row)
	}
	if spent == 0 || spent > maxRows {
		t.Errorf("%d bytes", spent)
	}
	x.search[Native].spent, x.search[Native].rows = maxRows, make([][]uint8, len(x.search[Native].progs))
	before := fmt.Sprint(x.search[Native].hits)
	x.search[Native].hits = make([][]int32, len(x.search[Native].progs))
	x.search[Native].run()
	if after := fmt.Sprint(x.search[Native].hits); after != before {
		t.Error("without rows the matches differ")
	}
}

func TestFramesHaveOneNumberEach(t *testing.T) {
	frames := []Frame{
		{Name: "one_zend_hash_find", Module: "php"},
		{Name: "two_zend_hash_find", Module: "php"}, // as long, and ends alike
		{Name: "a"}, {Name: "b"},
		{Module: "php"}, {Module: "libc.so.6"},
		{Kind: PHP, Name: "a"}, {Kind: PHP, Name: "a", Internal: true}, {Kind: PHP, Name: "a", Class: "C"},
	}
	if slot(frames[0].Name) != slot(frames[1].Name) {
		t.Fatal("the first two have different places")
	}
	c := intern(&Observation{Stacks: []Stack{{Frames: frames}, {Frames: frames[1:]}, {Frames: frames}}})
	for k, want := range []int{6, 3} {
		l := &c.lanes[k]
		if len(l.symbols) != want {
			t.Errorf("%d symbols of kind %d, want %d", len(l.symbols), k, want)
		}
		for i, first := range l.of(0) {
			if got := l.of(2)[i]; got != first || int(first) != i {
				t.Errorf("frame %d of kind %d is number %d, then %d", i, k, first, got)
			}
		}
	}
	if got := c.lanes[Native].of(1)[0]; got != 1 {
		t.Errorf("a stack that begins with the second function begins with number %d", got)
	}
}

func TestAPatternIsOnlyTriedWhereItsModuleIs(t *testing.T) {
	o := &Observation{}
	for i := range 2 * maxModules {
		o.Stacks = append(o.Stacks, Stack{Frames: []Frame{
			{Name: "poll", Module: "libc.so.6"}, {Name: fmt.Sprintf("f%d", i), Module: fmt.Sprintf("m%d.so", i)}, {Name: "zif_f", Module: "php"}, {Name: "execute_ex", Module: "php"},
		}})
		o.Events = append(o.Events, Event{Stack: i, Kind: Sample})
	}
	for _, c := range []struct {
		module string
		hits   []int32
	}{
		{"m3.so", []int32{3}},
		{"m100.so", []int32{100}}, // beyond those that have a bit
		{"m12?.so", []int32{120, 121, 122, 123}},
		{"php", nil},
		{"redis.so", []int32{}},
	} {
		t.Run(c.module, func(t *testing.T) {
			x := mustLoad(t, rule("a.b", "{stack: \"any mod="+c.module+"\\ngap 0-9\\nexecute_ex\"}", "")).evaluation(o)
			s := x.search[Native]
			if c.hits == nil {
				if len(s.hits[0]) != len(o.Stacks) {
					t.Errorf("%d stacks of %d match", len(s.hits[0]), len(o.Stacks))
				}
				return
			}
			if !slices.Equal(s.hits[0], c.hits) {
				t.Errorf("stacks %v match, want %v", s.hits[0], c.hits)
			}
			if len(c.hits) == 0 && s.tried[0] > 0 || s.ran[0] > maxModules+len(c.hits)+4 {
				t.Errorf("tried on %d stacks, run on %d", s.tried[0], s.ran[0])
			}
		})
	}
}
