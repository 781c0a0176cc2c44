package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

const linted = `schema: phpwhy/rule/v1
id: own.x
title: t
severity: low
APPLIES
match:
  stack: |
    leaf mremap
    0-8 zend_mm_chunk_extend|_erealloc2 unk
    LINE
  php: |
    user as=site
message: "{{site}}"
HEAD
`

// lintOf lints one rule with a test that matches and one that does not.
func lintOf(t *testing.T, applies, line, head string, tests ...Verdict) []string {
	t.Helper()
	text := strings.NewReplacer("APPLIES", applies, "LINE", line, "HEAD", head).Replace(linted)
	s, ps := Load(fstest.MapFS{"x.yaml": {Data: []byte(text)}, "y.yaml": {Data: []byte(rule("own.y", "{php: user}", ""))}})
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	o := LintOptions{Now: time.Date(2030, 6, 1, 0, 0, 0, 0, time.UTC), Only: func(r *Rule) bool { return r.ID == "own.x" }}
	for _, v := range tests {
		o.Tests = append(o.Tests, Case{Rule: "own.x", Expect: v})
	}
	var out []string
	for _, p := range s.Lint(o) {
		if !p.Warning() {
			t.Errorf("%v is no warning", p)
		}
		out = append(out, p.String())
	}
	return out
}

func TestLintFindsWhatLoadsAndIsAMistake(t *testing.T) {
	both := []Verdict{Match, NoMatch}
	for _, c := range []struct {
		name, applies, line, head string
		tests                     []Verdict
		want                      []string
	}{
		{"nothing wrong", "refs: []", "concat_function", "", both, nil},
		{"no test", "refs: []", "concat_function", "", nil, []string{"x.yaml:2:5 W105 no test says when own.x matches"}},
		{"no near miss", "refs: []", "concat_function", "", []Verdict{Match}, []string{"x.yaml:2:5 W106 no test says when own.x does not match"}},
		{"no near miss of a draft", "maturity: experimental", "concat_function", "", []Verdict{Match}, nil},
		{"no test of a draft", "maturity: experimental", "concat_function", "", nil, []string{"x.yaml:2:5 W105"}},
		{"a misspelt name", "refs: []", "concat_function|zend_mm_chunk_extnd", "", both,
			[]string{"x.yaml:10:21 W102 name in no known symbol list: zend_mm_chunk_extnd (did you mean zend_mm_chunk_extend?)"}},
		{"a name like no other", "refs: []", "opt kwyjibo_frobnicate", "", both, []string{"x.yaml:10:9 W102 name in no known symbol list: kwyjibo_frobnicate"}},
		{"a raw name", "refs: []", "__GI___mremap", "", both, nil},
		{"a glob that fits nothing", "refs: []", "1-2 concat_function|zend_nn_*", "", both, []string{"x.yaml:10:25 W102 no known symbol fits zend_nn_*"}},
		{"versions that do not exist", `applies_to: {php: ">=5.7 <7.0"}`, "concat_function", "", both, []string{"x.yaml:5:13 W103"}},
		{"a SAPI that does not exist", `applies_to: {sapi: [fpm]}`, "concat_function", "", both, []string{"x.yaml:5:13 W111 no SAPI is called fpm"}},
		{"a rule that does not exist", "supersedes: [own.z, own.y]", "concat_function", "", both, []string{"x.yaml:5:13 W104 supersedes a rule that does not exist: own.z (did you mean own.x?)"}},
		{"an override of nothing", "overrides: own.x@2", "concat_function", "", both, []string{"x.yaml:5:12 W112 no rule own.x is loaded here"}},
		{"an unused binding", "bind: {a: chain.steps}", "concat_function", "", both, []string{"x.yaml:5:7 W107 a is bound"}},
		{"a score that is never enough", "score: {base: 0.3, report_at: 0.6, plus: [{add: 0.2, if: stack.depth > 1}, {add: -0.2, if: stack.depth > 9}]}", "concat_function", "", both, []string{"x.yaml:5:8 W113 the score is 0.50 at most"}},
		{"an exception that is over", "refs: []", "concat_function", "exceptions: [{site: x, until: 2030-05-31, reason: r}]", both, []string{"x.yaml:14:14 W108 this exception ended on 2030-05-31"}},
		{"an exception that holds today", "refs: []", "concat_function", "exceptions: [{site: x, until: 2030-06-01, reason: r}]", both, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lintOf(t, c.applies, c.line, c.head, c.tests...)
			if len(got) != len(c.want) {
				t.Fatalf("got %q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], c.want[i]) {
					t.Errorf("got %q, want %q", got[i], c.want[i])
				}
			}
		})
	}
}

func TestLintFindsPatternsThatTheIndexCannotUse(t *testing.T) {
	for _, c := range []struct{ name, match, want string }{
		{"unknown frames only", `{stack: "leaf mremap unk\nconcat_function unk"}`, "W101 stack has no line that one exact name must match, so it is tried on every stack; a line with unk is no anchor"},
		{"globs only", `{stack: {one: "leaf mremap", two: "zend_mm_*"}}`, "W101 two has no line"},
		{"optional lines only", `{stack: "0-1 mremap\nany mod=php*"}`, "W101 stack has no line"},
		{"the same twice", `{stack: {one: "leaf  mremap", two: "leaf mremap"}}`, "W110 two is the same as one"},
		{"the same in two conditions", `{any: [{in: stops, stack: leaf mremap}, {in: samples, stack: leaf mremap}]}`, ""},
		{"an exception without a place", `{stack: leaf mremap}` + "\nexceptions: [{site: x, until: 2030-01-01, reason: r}]", "W108 no frame line has as=site"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ps := mustLoad(t, rule("a.b", c.match, "")).Lint(LintOptions{Tests: []Case{{Rule: "a.b", Expect: Match}, {Rule: "a.b", Expect: NoMatch}}})
			if c.want == "" && len(ps) > 0 || c.want != "" && (len(ps) != 1 || !strings.HasPrefix(ps[0].Code+" "+ps[0].Msg, c.want)) {
				t.Errorf("got %v, want %q", ps, c.want)
			}
		})
	}
}

func TestATestOfNoRuleIsAWarning(t *testing.T) {
	cases, _ := LoadTests(fstest.MapFS{"d/x.test.yaml": {Data: []byte("rule: a.bb\ncases:\n  - {capture: x, expect: match}\n")}})
	ps := mustLoad(t, rule("a.b", "{php: user}", "")).Lint(LintOptions{Tests: cases, Only: func(*Rule) bool { return false }})
	if len(ps) != 1 || ps[0].String() != "d/x.test.yaml:1:7 W109 no rule is called a.bb (did you mean a.b?)" {
		t.Error(ps)
	}
}

func TestTheBuiltInRulesAreCleanOfWarnings(t *testing.T) {
	set, _ := Load(builtin.FS)
	cases, _ := LoadTests(builtin.FS)
	var k Symbols
	if err := k.AddFiles(builtin.FS); err != nil {
		t.Fatal(err)
	}
	for _, p := range set.Lint(LintOptions{Tests: cases, Symbols: k, Now: time.Now()}) {
		t.Error(p)
	}
}

func TestTheSymbolListKnowsPHPAndItsLibraries(t *testing.T) {
	var k Symbols
	for _, n := range strings.Fields("mremap poll execute_ex concat_function zend_mm_chunk_extend zend_string_extend pcre2_match_8 PQgetResult curl_easy_perform zif_usleep __lll_lock_wait_private " +
		"zend_mm_mmap_fixed zend_binary_assign_op_helper_SPEC_CV_CONST zend_mm_mem_malloc_realloc _zend_mm_realloc_int zend_do_fcall_common_helper_SPEC") {
		if !k.has(n) {
			t.Errorf("%s is not known", n)
		}
	}
	for n, want := range map[string]bool{"concat_function": true, "mremap": true, "zend_mm_chunk_extend": false, "no_such_function": false} {
		if Exported(n) != want {
			t.Errorf("%s is exported: %v", n, !want)
		}
	}
	if got := k.like("concat_funtion"); got != "concat_function" {
		t.Errorf("concat_funtion is like %q", got)
	}
}

func TestNamesInTheCapturesOfARulesTestsAreKnown(t *testing.T) {
	set := mustLoad(t, rule("a.b", `{stack: "leaf my_extension_wait|my_extension_weit"}`, ""), rule("a.c", "{stack: leaf my_extension_wait}", ""))
	o := LintOptions{
		Tests: []Case{{Rule: "a.b", Capture: "x", Expect: Match}, {Rule: "a.b", Capture: "gone", Expect: NoMatch}, {Rule: "a.c", Capture: "gone", Expect: Match}, {Rule: "a.c", Capture: "gone", Expect: NoMatch}},
		Open: func(path string) (*Observation, error) {
			if path == "x" {
				return observe(seen{"my_extension_wait execute_ex", 0, 1}), nil
			}
			return nil, errors.New("no such file")
		},
	}
	var got []string
	for _, p := range set.Lint(o) {
		got = append(got, p.File+" "+p.Msg)
	}
	want := []string{"0.yaml name in no known symbol list: my_extension_weit", "1.yaml name in no known symbol list: my_extension_wait"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLintWarnsOfWhatIsGoodInARuleThatDoesNotLoad(t *testing.T) {
	const text = `schema: phpwhy/rule/v1
id: a.b
title: t
severity: hihg
supersedes: [a.z, a.c]
score: {base: 0.2, plus: [{add: 0.1, if: stack.dept > 1}]}
applies_to: {php: ">=5.7 <7.0"}
match:
  stack:
    one: |
      leaf mremapp
      5-2 read
    two: |
      leaf mremapp
message: "{{a}}"
bind: {a: stack.dept, b: stack.depth}
exceptions: [{site: x, until: 2030-05-31, reason: r}]
`
	set, ps := Load(fstest.MapFS{
		"b.yaml":     {Data: []byte(text)},
		"a.c.yaml":   {Data: []byte("id: [\n")},
		"dup/1.yaml": {Data: []byte(rule("d.u", "{stack: leaf read}", ""))},
		"dup/2.yaml": {Data: []byte(rule("d.u", "{stack: leaf raed}", ""))},
	})
	var cases []Case
	for _, id := range []string{"a.b", "a.c", "d.u", "a.d"} {
		for _, v := range []Verdict{Match, NoMatch} {
			cases = append(cases, Case{Rule: id, Expect: v, File: "x.test.yaml", RuleLine: 1, RuleCol: 1})
		}
	}
	ps = append(ps, set.Lint(LintOptions{Tests: cases})...)
	sortProblems(ps)
	var got []string
	for _, p := range ps {
		got = append(got, fmt.Sprintf("%s:%d %s", p.File, p.Line, p.Code))
	}
	want := []string{
		"a.c.yaml:1 E001",
		"b.yaml:4 E006", "b.yaml:5 W104", // of a.z alone: a.c is there
		"b.yaml:6 E008", "b.yaml:7 W103", "b.yaml:11 W102", "b.yaml:12 E007", "b.yaml:14 W102",
		"b.yaml:16 W107", "b.yaml:16 E008", // W107 of b alone
		"dup/2.yaml:2 E003", "dup/2.yaml:6 W102",
		"x.test.yaml:1 W109", // of a.d alone
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%v", diff, ps)
	}
}

func TestCodesAreDescribed(t *testing.T) {
	var missing []string
	for i := range 13 {
		missing = append(missing, "E0"+string(rune('0'+(i+1)/10))+string(rune('0'+(i+1)%10)), "W1"+string(rune('0'+(i+1)/10))+string(rune('0'+(i+1)%10)))
	}
	missing = slices.DeleteFunc(missing, func(c string) bool { return c == "E013" || Codes()[c] != "" })
	if len(missing) > 0 || len(Codes()) != 25 {
		t.Errorf("%v are not described, %d are", missing, len(Codes()))
	}
}
