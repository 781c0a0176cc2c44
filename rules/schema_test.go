package rules

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/phpwhy/phpwhy/rules/builtin"
)

var update = flag.Bool("update", false, "write the generated files")

func TestTheCheckedInSchemasAreThoseOfTheTypes(t *testing.T) {
	for file, text := range map[string][]byte{"schema/rule-v1.schema.json": RuleSchema(), "schema/test-v1.schema.json": TestSchema()} {
		if *update {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), string(have)); diff != "" {
			t.Errorf("%s is stale; run make generate: %s", file, diff)
		}
	}
}

// TestTheTypesHaveTheKeysThatTheLoaderReads compares them mapping by mapping.
func TestTheTypesHaveTheKeysThatTheLoaderReads(t *testing.T) {
	full := `schema: phpwhy/rule/v1
id: a.b
title: t
severity: low
message: m
applies_to: {php: ">=7"}
match: {all: [{php: user as=site}]}
score: {base: 0.5, plus: [{add: 0.1, if: stack.depth > 1}]}
exceptions: [{site: x, until: 2030-01-01, reason: r}]
`
	d := &decoder{keys: make(map[string][]string)}
	doc := d.document([]byte(full))
	d.rule(doc, &Rule{at: map[string]mark{}, bind: map[string]*expr{}}, bindings{})
	test := &decoder{keys: make(map[string][]string)}
	if _, ps := test.tests("x.test.yaml", []byte("rule: a.b\ncases:\n  - {capture: x, expect: match}\n")); len(ps) > 0 {
		t.Fatal(ps)
	}
	for _, c := range []struct {
		d    *decoder
		what string
		typ  reflect.Type
	}{
		{d, "a rule", reflect.TypeFor[ruleFile]()}, {d, "applies_to", reflect.TypeFor[appliesFile]()},
		{d, "a condition", reflect.TypeFor[conditionFile]()}, {d, "score", reflect.TypeFor[scoreFile]()},
		{d, "plus", reflect.TypeFor[plusFile]()}, {d, "an exception", reflect.TypeFor[exceptionFile]()},
		{test, "a test", reflect.TypeFor[testFile]()}, {test, "a case", reflect.TypeFor[caseFile]()},
	} {
		var keys []string
		for i := range c.typ.NumField() {
			keys = append(keys, c.typ.Field(i).Tag.Get("json"))
		}
		slices.Sort(keys)
		if diff := cmp.Diff(c.d.keys[c.what], keys); diff != "" {
			t.Errorf("%s: loader and schema differ: %s", c.what, diff)
		}
	}
	if n := len(d.keys) + len(test.keys); n != 8 {
		t.Errorf("the loader reads %d kinds of mappings, 8 are compared", n)
	}
}

func compileSchema(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:///x.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:///x.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// plainYAML is a file as an editor's validator sees it: dates are texts.
func plainYAML(t *testing.T, b []byte) any {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	var walk func(n *yaml.Node) any
	walk = func(n *yaml.Node) any {
		switch n.Kind {
		case yaml.DocumentNode:
			return walk(n.Content[0])
		case yaml.AliasNode:
			return walk(n.Alias)
		case yaml.MappingNode:
			m := make(map[string]any)
			for i := 0; i+1 < len(n.Content); i += 2 {
				m[n.Content[i].Value] = walk(n.Content[i+1])
			}
			return m
		case yaml.SequenceNode:
			l := []any{}
			for _, c := range n.Content {
				l = append(l, walk(c))
			}
			return l
		}
		if n.Tag == "!!timestamp" {
			return n.Value
		}
		var v any
		if err := n.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	return walk(&doc)
}

func TestTheSchemasAcceptTheBuiltInRulesAndTests(t *testing.T) {
	rule, test := compileSchema(t, RuleSchema()), compileSchema(t, TestSchema())
	files, err := fs.Glob(builtin.FS, "*.yaml")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		b, err := fs.ReadFile(builtin.FS, f)
		if err != nil {
			t.Fatal(err)
		}
		s := rule
		if isTestFile(f) {
			s = test
		}
		if err := s.Validate(plainYAML(t, b)); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// TestTheSchemaRefusesTheBadFixtures leaves out those whose fault no schema can
// see: YAML's own, and what stands inside texts.
func TestTheSchemaRefusesTheBadFixtures(t *testing.T) {
	rule := compileSchema(t, RuleSchema())
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(f, "anchors") {
			continue
		}
		err = rule.Validate(plainYAML(t, b))
		if err == nil {
			t.Errorf("%s was accepted", f)
			continue
		}
		refused++
	}
	if refused < 6 {
		t.Errorf("only %d fixtures were tried", refused)
	}
}

// TestSchemaAndLoaderAgreeOnShapes holds that the schema refuses what the
// loader refuses for its shape, one fault at a time.
func TestSchemaAndLoaderAgreeOnShapes(t *testing.T) {
	s := compileSchema(t, RuleSchema())
	for _, c := range []struct {
		name, match, head string
		ok                bool
	}{
		{"the least", "{php: user}", "", true},
		{"all in one", "{all: [{any: [{not: {php: user}}]}, {expr: stack.depth > 1}, {in: stops, share: 0.5, stack: {a: leaf a, b: leaf b}, php: user}]}", "", true},
		{"two forms", "{php: user, expr: stack.depth > 1}", "", false},
		{"in without stack", "{in: stops, expr: stack.depth > 1}", "", false},
		{"nothing", "{}", "", false},
		{"an empty list", "{all: []}", "", false},
		{"a share of 0", "{share: 0, php: user}", "", false},
		{"an unknown key", "{php: user}", "colour: red", false},
		{"a score without base", "{php: user}", "score: {report_at: 0.2}", false},
		{"a label", "{php: user}", "labels: {team: a}", true},
		{"a label that is a list", "{php: user}", "labels: {team: [a]}", false},
		{"a revision of 0", "{php: user}", "revision: 0", false},
		{"an override", "{php: user}", "overrides: a.b@2", true},
		{"an override without revision", "{php: user}", "overrides: a.b", false},
		{"an exception", "{php: user as=site}", "exceptions: [{site: x, until: 2030-01-31, reason: r}]", true},
		{"an exception for ever", "{php: user as=site}", "exceptions: [{site: x, reason: r}]", false},
		{"a SAPI that is no list", "{php: user}", "applies_to: {sapi: cli}", false},
		{"an empty explanation", "{php: user}", `explain: ""`, true},
		{"an empty label", "{php: user}", `labels: {team: ""}`, true},
		{"an empty expression", `{expr: ""}`, "", false},
		{"an empty pattern", `{stack: ""}`, "", false},
		{"an empty named pattern", `{stack: {a: " "}}`, "", false},
		{"an empty in", `{in: "", php: user}`, "", false},
		{"an empty binding", "{php: user}", `bind: {n: ""}`, false},
		{"an empty bonus", "{php: user}", `score: {base: 0.5, plus: [{add: 0.2, if: ""}]}`, false},
		{"an empty maturity", "{php: user}", `maturity: ""`, false},
		{"an empty override", "{php: user}", `overrides: ""`, false},
		{"an empty id among those superseded", "{php: user}", `supersedes: [""]`, false},
		{"an empty range", "{php: user}", `applies_to: {php: ""}`, false},
		{"a range", "{php: user}", `applies_to: {php: ">=5.6 <9"}`, true},
		{"a range of one version", "{php: user}", `applies_to: {php: " ==8.2.1 "}`, true},
		{"a range with blanks", "{php: user}", `applies_to: {php: ">= 5.6"}`, false},
		{"a range without an operator", "{php: user}", `applies_to: {php: "8.2"}`, false},
		{"a range of wildcards", "{php: user}", `applies_to: {php: ">=8.x"}`, false},
		{"an empty SAPI", "{php: user}", `applies_to: {sapi: [""]}`, false},
		{"an empty reason", "{php: user as=site}", `exceptions: [{site: x, until: 2030-01-31, reason: ""}]`, false},
		{"a libc that is none", "{php: user}", "applies_to: {libc: [newlib]}", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := []byte(rule("a.b", c.match, c.head))
			_, ps := Parse("x.yaml", b)
			if err := s.Validate(plainYAML(t, b)); (err == nil) != c.ok || (len(ps) == 0) != c.ok {
				t.Errorf("schema: %v; loader: %v; want ok %v", err, ps, c.ok)
			}
		})
	}
}

// TestTheSchemaSaysOfAConditionWhatIsWrongWithIt holds that no form is complained of
// that the author did not choose: editors show the first message.
func TestTheSchemaSaysOfAConditionWhatIsWrongWithIt(t *testing.T) {
	s := compileSchema(t, RuleSchema())
	for match, want := range map[string]string{
		"{stack: leaf a, expr: stack.depth > 1}": "maxProperties: got 2, want 1",
		"{in: stops}":                            "missing property 'stack'",
		"{}":                                     "minProperties: got 0, want 1",
		"[{php: user}]":                          "got array, want object",
	} {
		err := s.Validate(plainYAML(t, []byte(rule("a.b", match, ""))))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "'all'") {
			t.Errorf("%s: %v, want %s", match, err, want)
		}
	}
}

func TestSchemaAndLoaderAgreeOnEmptyTextsOfTests(t *testing.T) {
	s := compileSchema(t, TestSchema())
	for _, c := range []struct {
		text, want string // want: of the loader
	}{
		{"rule: a.b\ncases: [{capture: x, expect: match}]", ""},
		{"rule: \"\"\ncases: [{capture: x, expect: match}]", "rule is empty"},
		{"rule: a.b\ncases: [{capture: \"\", expect: match}]", "capture is empty"},
		{"rule: a.b\ncases: [{capture: x, expect: \"\"}]", "expect is empty"},
		{"rule: a.b\ncases: [{capture: x, expect: match, score: \"\"}]", "score is empty"},
		{"rule: a.b\ncases: [{capture: x, expect: match, captures: {site: \"\"}}]", "a capture is empty"},
	} {
		_, ps := parseTest("x.test.yaml", []byte(c.text))
		got := ""
		for _, p := range ps {
			got += p.Msg
		}
		if err := s.Validate(plainYAML(t, []byte(c.text))); (err == nil) != (c.want == "") || got != c.want {
			t.Errorf("%q: schema: %v; loader: %q, want %q", c.text, err, got, c.want)
		}
	}
}

// TestTheTutorialsRulesLoad reads what docs/writing-rules.md shows.
func TestTheTutorialsRulesLoad(t *testing.T) {
	b, err := os.ReadFile("../docs/writing-rules.md")
	if err != nil {
		t.Fatal(err)
	}
	var head string
	rules, tests := 0, 0
	for _, part := range strings.Split(string(b), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(part, "```")
		switch {
		case strings.HasPrefix(text, "schema:"):
			rules++
			head, _, _ = strings.Cut(text, "match:")
		case strings.HasPrefix(text, "match:"): // the rule's end, changed
			rules++
			text = head + text
		case strings.HasPrefix(text, "rule:"):
			tests++
			if _, ps := parseTest("x", []byte(text)); len(ps) > 0 {
				t.Error(ps)
			}
			continue
		default:
			continue
		}
		if _, ps := Parse("x", []byte(text)); len(ps) > 0 {
			t.Errorf("%v\n%s", ps, text)
		}
	}
	if rules != 2 || tests != 1 {
		t.Errorf("%d rules and %d tests were found", rules, tests)
	}
}
