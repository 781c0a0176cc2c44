package rules

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestADraftMatchesWhatItIsMadeFrom(t *testing.T) {
	files, _ := filepath.Glob("testdata/bt/*.txt")
	if len(files) < 13 {
		t.Fatalf("%d files", len(files))
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			o := pasted(t, filepath.Base(f))
			d, err := MakeDraft(o, DraftOptions{ID: "my.draft"})
			if err != nil {
				t.Fatal(err)
			}
			rep := evaluate(t, only(d.Rule), o)
			if rep.Results[0].Verdict != Match || len(rep.Findings) != 1 {
				t.Errorf("%+v\n%s", rep.Results[0], d.Text)
			}
			for _, p := range only(d.Rule).Lint(LintOptions{Tests: []Case{{Rule: "my.draft", Expect: Match}, {Rule: "my.draft"}}}) {
				if p.Code != codeSymbol { // of PHP versions that the list is not made from
					t.Errorf("%v\n%s", p, d.Text)
				}
			}
		})
	}
}

func TestADraftKeepsTheFramesThatTell(t *testing.T) {
	for _, c := range []struct{ name, stack, want string }{
		{"a stripped binary", "mremap ? concat_function ? execute_ex main", "leaf mremap|gap 0-5|concat_function"},
		{"one with symbols", "mremap ~zend_mm_chunk_extend zend_mm_realloc_huge ~zend_string_extend concat_function ~zend_binary_op ZEND_ASSIGN_OP_SPEC_CV_CONST_HANDLER execute_ex",
			"leaf mremap|opt zend_mm_chunk_extend|zend_mm_realloc_huge unk|opt zend_string_extend|concat_function"},
		{"the interpreter at work", "execute_ex zend_execute main", "leaf execute_ex"},
		{"one name and unknown frames", "zend_hash_str_find ? ? execute_ex zend_execute main", "leaf zend_hash_str_find|gap 0-6|execute_ex"},
		{"an internal function", "zend_hash_str_find ? zif_strtr execute_ex", "leaf zend_hash_str_find|gap 0-5|zif_strtr"},
		{"a name that no line can hold", "poll <signal|handler> concat_function", "leaf poll|gap 0-5|concat_function"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := observe(seen{c.stack, 3, 0})
			d, err := MakeDraft(o, DraftOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(lines(d.Rule.alts[0].prg.p), "|"); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func lines(p *pattern) (out []string) {
	for i := range p.elements {
		out = append(out, p.elements[i].text)
	}
	return out
}

func TestADraftCoversSeveralStacksAndTheirPlace(t *testing.T) {
	o := observe(seen{"poll php_poll2 execute_ex php!stream_select php:wait", 0, 5}, seen{"recv zend_fetch_resource execute_ex php!stream_select php:wait", 0, 4}, seen{"memcpy execute_ex php:other", 0, 1})
	d, err := MakeDraft(o, DraftOptions{ID: "my.wait", Title: "it waits: for ever"})
	if err != nil {
		t.Fatal(err)
	}
	f := evaluate(t, only(d.Rule), o).Findings[0]
	if d.Site != "/srv/wait.php:5" || f.Matched != 9 || f.Of != 10 || !strings.Contains(d.Text, "leaf internal stream_select\n") || !strings.Contains(d.Text, "share: 0.8\n") {
		t.Errorf("site %q, %d of %d\n%s", d.Site, f.Matched, f.Of, d.Text)
	}
}

func TestADraftLeavesOutWhatMustNotMatch(t *testing.T) {
	hang := observe(seen{"poll zend_hash_find zend_sort php_usort execute_ex", 2, 0})
	d, err := MakeDraft(observe(seen{"poll concat_function execute_ex zend_include_or_eval_handler zend_execute_scripts", 2, 0}),
		DraftOptions{ID: "my.a", Not: []*Observation{observe(seen{"poll concat_function execute_ex zend_call_function main", 2, 0})}})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(lines(d.Rule.alts[0].prg.p), "|"); !strings.HasPrefix(got, "leaf poll|concat_function|execute_ex|zend_include_or_eval_handler") {
		t.Error(got)
	}
	if _, err := MakeDraft(hang, DraftOptions{Not: []*Observation{hang}}); !errors.Is(err, ErrNotDistinct) {
		t.Error(err)
	}
	if _, err := MakeDraft(observe(seen{"? ? ?", 2, 0}), DraftOptions{}); !errors.Is(err, ErrNothingToDraft) {
		t.Error(err)
	}
	if _, err := MakeDraft(hang, DraftOptions{ID: "Bad"}); err == nil || !strings.Contains(err.Error(), "no rule id") {
		t.Error(err)
	}
}

func TestSimilarRulesAreNamed(t *testing.T) {
	o := observe(seen{"mremap zend_mm_realloc_huge concat_function execute_ex", 2, 0})
	d, err := MakeDraft(o, DraftOptions{ID: "my.a"})
	if err != nil {
		t.Fatal(err)
	}
	s := mustLoad(t, rule("a.match", "{stack: leaf mremap}", ""), rule("a.like", `{stack: "leaf mremap\nconcat_function\nmain"}`, ""), rule("a.far", "{stack: leaf poll}", ""), rule("my.a", "{stack: leaf poll}", ""))
	near, err := s.Similar(d, o)
	if err != nil || len(near) != 2 || near[0].Rule.ID != "a.match" || near[1].Rule.ID != "a.like" {
		t.Errorf("%+v %v", near, err)
	}
}

func TestQuotedTextsAreReadAsTheyAre(t *testing.T) {
	for _, text := range []string{"", "a: b #c", "it's \"so\"\n\ttabs\\", "/srv/アプリ/ü.php:3", "\x7f\x1b[2J\u0085\u202e\ufeff😀", "{{site}} <&>"} {
		d := &decoder{}
		n := d.document([]byte("k: " + Quote(text)))
		if n == nil || d.text(n.Content[1], "k") != text || len(d.problems) > 0 {
			t.Errorf("%q as %s: %v", text, Quote(text), d.problems)
		}
	}
}

// FuzzDraft holds that any stacks give a rule that loads and matches them, or
// a reason why not.
func FuzzDraft(f *testing.F) {
	f.Add("mremap ? concat_function execute_ex php:f", "poll zif_stream_select php!stream_select php:g", "my title: \"x\"", uint8(3))
	f.Add("? ?libc ~a <x|y> 0-1 gap unk leaf", "opt root any", "\x00\x7f", uint8(0))
	f.Fuzz(func(t *testing.T, one, two, title string, n uint8) {
		o := observe(seen{one, int(n), 1}, seen{two, 1, int(n)})
		d, err := MakeDraft(o, DraftOptions{ID: "my.draft", Title: title})
		if errors.Is(err, ErrNothingToDraft) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if res := evaluate(t, only(d.Rule), o).Results[0]; res.Verdict != Match {
			t.Fatalf("%v\n%s", res.Verdict, d.Text)
		}
	})
}
