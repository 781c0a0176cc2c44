package rules

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

func TestTheBuiltInPackLoadsWithoutProblems(t *testing.T) {
	s, ps := Load(builtin.FS)
	for _, p := range ps {
		t.Error(p)
	}
	for _, id := range []string{"mem.string-concat", "mem.array-append", "mem.recursion", "cpu.php-loop"} {
		if s.Rule(id) == nil {
			t.Errorf("no rule %s", id)
		}
	}
}

// TestEveryProblemOfAFileIsReportedWithItsPlace reads testdata/*.bad.yaml; each
// problem is announced by a comment "# want LINE:COL CODE text".
func TestEveryProblemOfAFileIsReportedWithItsPlace(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(b)) {
				if w, ok := strings.CutPrefix(strings.TrimSpace(line), "# want "); ok {
					want = append(want, w)
				}
			}
			r, ps := Parse("x.yaml", b)
			if r != nil {
				t.Error("the rule was accepted")
			}
			var got []string
			for _, p := range ps {
				got = append(got, fmt.Sprintf("%d:%d %s %s", p.Line, p.Col, p.Code, p.Msg))
			}
			if len(got) != len(want) {
				t.Fatalf("got %d problems, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
			}
			for i := range want {
				if !strings.HasPrefix(got[i], want[i]) {
					t.Errorf("got  %s\nwant %s", got[i], want[i])
				}
			}
		})
	}
}

func TestWhatIsNoYAMLIsPlacedWhereItIs(t *testing.T) {
	head := "# a comment\nschema: phpwhy/rule/v1\nid: a.b\n"
	for _, c := range []struct{ name, text, want string }{
		{"a key that is indented too far", head + "title: t\n  severity: low\nmessage: m\n", "5:1 E001 mapping values are not allowed"},
		{"a key that is indented too little", head + "match:\n    all:\n      - php: user\n     any: []\nmessage: m\n", "7:1 E001 did not find expected"},
		{"a list that goes on as a mapping", head + "refs:\n  - a\n  b: c\nmessage: m\n", "6:1 E001 did not find expected '-' indicator"},
		{"a bracket that is not closed", head + "refs: [a, b\ntitle: t\nmessage: m\n", "4:1 E001 did not find expected ',' or ']'"},
		{"a bracket on the first line", "refs: [\n", "1:1 E001 did not find expected node content"},
		{"a quote that is not closed", head + "title: \"t\nmessage: m\n", "4:1 E001 found unexpected end of stream"},
		{"a message that begins with a name", head + "message: {{site}} grows\ntitle: t\n", "4:1 E001 did not find expected key; a text that begins with { or [ needs quotes"},
		{"a title that begins with a bracket", head + "title: [draft] it grows\nmessage: m\n", "4:1 E001 did not find expected key; a text that begins with { or [ needs quotes"},
		{"a text that begins with a star", head + "title: *grows\n", "4:1 E001 anchors and aliases are not accepted; a text that begins with * needs quotes"},
		{"a tab", head + "match:\n\tphp: user\n", "5:1 E001 found character that cannot start any token"},
		{"bytes that are no UTF-8", head + "title: gr\xfc\xdf dich\nmessage: \xff\n", "4:10 E001 this is not UTF-8 (byte 0xfc)|5:10 E001 this is not UTF-8 (byte 0xff)"},
		{"a control character", head + "title: é\x1b[1m\n", "4:9 E001 control characters are not accepted (byte 0x1b)"},
		{"nothing", "", "1:1 E001 the file is empty"},
		{"comments alone", "# title: t\n\n", "1:1 E001 the file is empty"},
		{"a document that is empty", "---\n", "1:1 E001 the file is empty"},
		{"a list", "- a\n", "1:1 E001 the file is not a mapping"},
		{"a second document that is broken", fmt.Sprintf(minimal, "a.b", "---\nx: [\n"), "8:1 E001 did not find expected node content"},
		{"a second document", fmt.Sprintf(minimal, "a.b", "---\nx: y\n"), "7:1 E001 one file holds one document"},
		{"line ends of old Macs", strings.ReplaceAll(fmt.Sprintf(minimal, "a.b", ""), "\n", "\r"), ""},
		{"Windows line ends", strings.ReplaceAll(fmt.Sprintf(minimal, "a.b", ""), "\n", "\r\n"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, ps := Parse("x.yaml", []byte(c.text))
			want := strings.Split(c.want, "|")
			if c.want == "" {
				want = nil
			}
			if len(ps) != len(want) {
				t.Fatalf("got %v, want %q", ps, want)
			}
			for i, w := range want {
				if got := strings.TrimPrefix(ps[i].String(), "x.yaml:"); !strings.HasPrefix(got, w) {
					t.Errorf("got  %s\nwant %s", got, w)
				}
			}
		})
	}
}

func TestAProblemCausesNoFurtherOnes(t *testing.T) {
	for _, c := range []struct{ name, match, head, want string }{
		{"a share that is a text", `{share: "0.8", php: user}`, "", "E004 share is a number"},
		{"a base that is a text", "{php: user}", `score: {base: "0.5"}`, "E004 base is a number"},
		{"a bonus that is a list", "{php: user}", "score: {base: 0.5, plus: [{add: [1], if: stack.depth > 1}]}", "E004 add is a number"},
		{"a revision that is a text", "{php: user}", `revision: "2"`, "E004 revision is a whole number"},
		{"a word that is a truth value, and no severity", "{php: user}", "kind: no", `E006 kind is one of cause, benign, not "no"`},
		{"an alias", "{php: user}", "title: &x t", "E001 anchors and aliases are not accepted"},
		{"a key of a condition", `{stak: "leaf read as=site"}`, "", `E002 unknown key "stak" in a condition (did you mean stack?)`},
		{"a message that is a mapping", "{php: user}", "message: {{site}}", "E004 message is a text; a text that begins with { or [ needs quotes"},
		{"a name that a bad expression binds", "{php: user}", "bind: {n: chain.step}\nmessage: \"{{n|int}}\"", "E008 no evidence is called chain.step (did you mean chain.steps?)"},
		{"a name that a bad line captures", `{php: "user as=site mod=x"}`, `message: "{{site}}"`, "E007 mod=x: no such attribute here"},
		{"names of patterns that can't be read", "{stack: [leaf read as=site]}", `message: "{{site}}"`, "E004 write a pattern"},
		{"bind that is a list", "{php: user}", "bind: [n]\nmessage: \"{{n}}\"", "E004 bind is a mapping"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := rule("a.b", c.match, c.head)
			for _, key := range []string{"message", "title"} {
				if strings.Contains(c.head, key+":") {
					text = strings.Replace(text, key+": "+key[:1]+"\n", "", 1)
				}
			}
			_, ps := Parse("x.yaml", []byte(text))
			if len(ps) != 1 || !strings.HasPrefix(ps[0].Code+" "+ps[0].Msg, c.want) {
				t.Errorf("got %v, want %s", ps, c.want)
			}
		})
	}
}

func TestWhatIsWrongWithAnExpression(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{"chain.step > 3 && proc.cpu_pc > 3.0", "1 no evidence is called chain.step (did you mean chain.steps?)|19 no evidence is called proc.cpu_pc (did you mean proc.cpu_pct?)"},
		{`fd.path.startWith("/x")`, "9 fd.path has no method startWith (did you mean startsWith?)"},
		{`event.symbol.startswith("m")`, "14 event.symbol has no method startswith (did you mean startsWith?)"},
		{`fd.pth.startsWith("/x")`, "1 no evidence is called fd.pth (did you mean fd.path?)"},
		{`fd.path.startsWith(1)`, "19 found no matching overload for 'startsWith' applied to 'string.(int)'"},
		{`fd.path.frobnicate()`, "9 fd.path has no method frobnicate"},
		{`fd.path.length > 1`, "1 no evidence is called fd.path.length"},
		{"has(chain.steps)", "1 has() does not see evidence; leave has(chain.steps) out: without it the rule is undetermined by itself"},
		{"has(chain.steps) && chain.steps > 3.0", "1 has() does not see|33 found no matching overload for '_>_' applied to '(int, double)'; write the number without"},
		{"steps > 3", "1 no evidence is called steps (did you mean chain.steps?)"},
		{"sizes(fd.path) > 3", "6 no function is called sizes (did you mean size?)"},
		{`fd.path.matches("(")`, "17 matches: error parsing regexp: missing closing )"},
		{`matches(fd.path, "a**")`, "18 matches: error parsing regexp"},
		{`fd.path.matches("^/(tmp|var)/")`, ""},
		{`fd.path == "chain.step" || fd.path.size() > 3`, ""},
		{"event.args.exists(a, a > 5u)", ""},
		{"chain.steps > && chain.step > 1", "15 Syntax error|18 no evidence is called chain.step"},
	} {
		t.Run(c.expr, func(t *testing.T) {
			var got []string
			for _, e := range (&expr{text: c.expr}).compile() {
				got = append(got, fmt.Sprintf("%d %s", e.col+1, e.msg))
			}
			want := strings.Split(c.want, "|")
			if c.want == "" {
				want = nil
			}
			ok := len(got) == len(want)
			for i := range want {
				ok = ok && strings.HasPrefix(got[i], want[i])
			}
			if !ok {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestFiltersWantNumbers(t *testing.T) {
	for _, c := range []struct{ bind, message, want string }{
		{"chain.steps", "{{n|int}} {{n|bytes}} {{n|secs}}", ""},
		{"'event.args[1]'", "{{n|bytes}}", ""},
		{"proc.cpu_pct", "{{n|int}}", ""},
		{"dyn(fd.path)", "{{n|int}}", ""},
		{"fd.path", "{{n}}", ""},
		{"fd.path", "{{n|bytes}}", "E009 {{n|bytes}} needs a number, and n is of type string"},
		{"chain.monotonic", "{{n|int}}", "E009 {{n|int}} needs a number, and n is of type bool"},
		{"chain.steps", "{{site|int}}", "E009 {{site|int}} needs a number, and site is of type string"},
	} {
		text := strings.Replace(rule("a.b", "{php: user as=site}", "bind: {n: "+c.bind+"}"), "message: m", "message: \""+c.message+"\"", 1)
		_, ps := Parse("x.yaml", []byte(text))
		got := ""
		for _, p := range ps {
			got += p.Code + " " + p.Msg
		}
		if got != c.want {
			t.Errorf("%s of %s: got %q, want %q", c.message, c.bind, got, c.want)
		}
	}
}

const minimal = `schema: phpwhy/rule/v1
id: %s
title: t
severity: low
match: {php: user}
message: m
%s`

func TestARuleWithAProblemTakesNoOtherDown(t *testing.T) {
	s, ps := Load(fstest.MapFS{
		"good.yaml":   {Data: fmt.Appendf(nil, minimal, "a.good", "")},
		"bad.yaml":    {Data: fmt.Appendf(nil, minimal, "a.bad", "colour: red")},
		"c1.yaml":     {Data: fmt.Appendf(nil, minimal, "c.one", "supersedes: [c.two]")},
		"c2.yaml":     {Data: fmt.Appendf(nil, minimal, "c.two", "supersedes: [c.one]")},
		"again.yml":   {Data: fmt.Appendf(nil, minimal, "a.good", "")},
		"no.txt":      {Data: []byte("not a rule")},
		"x.test.yaml": {Data: []byte("not a rule either")},
	})
	if len(s.Rules()) != 1 || s.Rule("a.good") == nil {
		t.Errorf("%d rules were kept", len(s.Rules()))
	}
	codes := ""
	for _, p := range ps {
		codes += p.Code + " "
	}
	// again.yml comes first, so that good.yaml is the duplicate.
	if want := "E002 E010 E010 E003 "; codes != want {
		t.Errorf("problems %s, want %s: %v", codes, want, ps)
	}
}

func TestATrustedExpressionIsCompiledWhenAVerdictDependsOnIt(t *testing.T) {
	const text = `schema: phpwhy/rule/v1
id: %s
title: t
severity: low
match:
  all:
    - expr: %s
    - stack: leaf read
message: m
`
	s, ps := LoadSources(Source{Trusted: true, FS: fstest.MapFS{
		"good.yaml": {Data: fmt.Appendf(nil, text, "a.good", "proc.cpu_pct >= 0.0")},
		"bad.yaml":  {Data: fmt.Appendf(nil, text, "a.bad", "proc.no_such > 1")},
	}})
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	look := func(leaf string) (good, bad Result) {
		o := observe(seen{leaf, 0, 3})
		o.Facts = map[string]any{"proc.cpu_pct": 1.0}
		rep, err := s.Evaluate(o, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return rep.Results[1], rep.Results[0]
	}
	e := s.Rule("a.good").match.(*allNode).of[0].(*exprNode).e
	if good, bad := look("write"); good.Verdict != NoMatch || bad.Verdict != NoMatch || e.prg != nil {
		t.Errorf("another stack: %v, %v, compiled %v", good.Verdict, bad.Verdict, e.prg != nil)
	}
	good, bad := look("read")
	if good.Verdict != Match || e.prg == nil {
		t.Errorf("a good expression: %v, %v", good.Verdict, good.Errors)
	}
	if bad.Verdict != Undetermined || !strings.Contains(strings.Join(bad.Errors, ""), "no evidence is called proc.no_such") {
		t.Errorf("a bad expression: %v, %v", bad.Verdict, bad.Errors)
	}
}

func TestARuleOverridesAnotherOfItsIDOnlyByNamingItsRevision(t *testing.T) {
	file := func(id, head string) *fstest.MapFile {
		return &fstest.MapFile{Data: fmt.Appendf(nil, minimal, id, head)}
	}
	base := Source{FS: fstest.MapFS{"x.yaml": file("a.x", "revision: 3"), "y.yaml": file("a.y", "supersedes: [a.z]")}, Name: "builtin"}
	for _, c := range []struct {
		name, head, want string // want: the problem
		from             string // the source of a.x in force
	}{
		{"by its revision", "overrides: a.x@3", "", "own"},
		{"without overrides", "", "own/x.yaml:2:5 E003 rule a.x is already defined in builtin/x.yaml; to replace it, say overrides: a.x@3", "builtin"},
		{"of an older revision", "overrides: a.x@2", "own/x.yaml:7:12 E011 it overrides a.x@2, but builtin/x.yaml has revision 3: compare the two and say a.x@3", "builtin"},
		{"into a circle", "overrides: a.x@3\nsupersedes: [a.x]", "own/x.yaml:8:13 E010 a.x supersedes itself in a circle: a.x, a.x", "builtin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ps := LoadSources(base, Source{FS: fstest.MapFS{"x.yaml": file("a.x", c.head)}, Name: "own"})
			got := ""
			for _, p := range ps {
				got += p.String()
			}
			if got != c.want || s.Rule("a.x") == nil || s.Rule("a.x").Source != c.from || s.Rule("a.y") == nil {
				t.Errorf("problems %q, rules %v", got, s.byID)
			}
			if r := s.Rule("a.x").Replaces(); (r != nil) != (c.want == "") {
				t.Errorf("replaces %v", r)
			}
		})
	}
	if s, ps := LoadSources(Source{FS: fstest.MapFS{"x.yaml": file("a.x", "overrides: a.x@3")}, Name: "own"}); len(ps) > 0 || s.Rule("a.x") == nil {
		t.Errorf("overriding what is not loaded: %v", ps)
	}
}

func TestACircleTakesTheRulesOfTheLastSource(t *testing.T) {
	s, ps := LoadSources(
		Source{FS: fstest.MapFS{"x.yaml": {Data: fmt.Appendf(nil, minimal, "a.x", "supersedes: [own.z]")}}, Name: "builtin"},
		Source{FS: fstest.MapFS{"z.yaml": {Data: fmt.Appendf(nil, minimal, "own.z", "supersedes: [a.x]")}}, Name: "own"})
	if len(ps) != 1 || ps[0].String() != "own/z.yaml:7:13 E010 own.z supersedes itself in a circle: own.z, a.x, own.z" || s.Rule("a.x") == nil || s.Rule("own.z") != nil {
		t.Errorf("%v", ps)
	}
}

func TestWhatIsNoRegularFileIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	if err := exec.Command("mkfifo", filepath.Join(dir, "x.yaml")).Run(); err != nil {
		t.Fatal(err)
	}
	if _, ps := LoadSources(Source{FS: os.DirFS(dir), Name: "own"}); len(ps) != 1 || ps[0].String() != "own/x.yaml:1:1 E001 x.yaml is no regular file" {
		t.Errorf("%v", ps)
	}
}

// FuzzParse holds that no file makes the loader panic, and that every problem
// lies within the file.
func FuzzParse(f *testing.F) {
	for _, p := range []string{"builtin/mem.string-concat.yaml", "builtin/mem.recursion.yaml"} {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	bad, _ := filepath.Glob("testdata/*.bad.yaml")
	for _, p := range bad {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(rule("a.b", `{expr: ""}`, "")))
	f.Add([]byte(rule("a.b", "{php: user}", `score: {base: 0.5, plus: [{add: 0.2, if: ""}]}`)))
	looks := []*Observation{observe(), observe(seen{"mremap concat_function php:a", 9, 9})}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ps := Parse("f.yaml", b)
		if (r == nil) == (len(ps) == 0) {
			t.Fatalf("rule %v with %d problems", r != nil, len(ps))
		}
		if r != nil {
			// What loads can be evaluated.
			for _, o := range looks {
				rep, err := only(r).Evaluate(o, Options{})
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range rep.Results[0].Errors {
					if strings.Contains(e, "the rule was skipped") {
						t.Fatal(e)
					}
				}
			}
		}
		lines := strings.Count(string(b), "\n") + strings.Count(string(b), "\r") +
			strings.Count(string(b), "\u0085") + strings.Count(string(b), "\u2028") + strings.Count(string(b), "\u2029") + 2
		for _, p := range ps {
			if p.Line < 1 || p.Col < 1 || p.Line > lines {
				t.Fatalf("%v lies outside the file's %d lines", p, lines)
			}
		}
	})
}
