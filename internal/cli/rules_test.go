package cli_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	captures = "../../rules/builtin/captures/"
	pastes   = "../../rules/testdata/bt/"
)

// quiet keeps the rules of whoever runs the tests out.
func quiet(t *testing.T) (config string) {
	t.Helper()
	config = t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	return config
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func abs(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// goodRule matches the concat captures; LINE can be misspelt, HEAD is further keys.
const goodRule = `schema: phpwhy/rule/v1
id: own.concat
title: a string grows
severity: high
HEAD
match:
  all:
    - in: stops
      share: 0.8
      stack: |
        leaf mremap
        0-8 zend_mm_* unk
        LINE
      php: |
        user as=site
message: "{{site}} grows a string"
`

func ruleText(line, head string) string {
	return strings.NewReplacer("LINE", line, "HEAD", head).Replace(goodRule)
}

// rulesDir is a folder with a rule and its test on two built-in captures.
func rulesDir(t *testing.T, rule, test string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "own.concat.yaml"), rule)
	for _, c := range []string{"concat-8.2-stripped.jsonl.zst", "array-append-8.2-stripped.jsonl.zst"} {
		b, err := os.ReadFile(captures + c)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "captures", c), string(b))
	}
	if test != "" {
		write(t, filepath.Join(dir, "own.concat.test.yaml"), test)
	}
	return dir
}

const goodTest = `rule: own.concat
cases:
  - {capture: captures/concat-8.2-stripped.jsonl.zst, expect: match, captures: {site: "/srv/app/mem.string-concat.php:12"}}
  - {capture: captures/array-append-8.2-stripped.jsonl.zst, expect: no_match}
`

func TestTheExitCodesOfRulesAreFrozen(t *testing.T) {
	quiet(t)
	good := rulesDir(t, ruleText("concat_function", "refs: []"), goodTest)
	untested := rulesDir(t, ruleText("concat_function", "refs: []"), "")
	misspelt := rulesDir(t, ruleText("concat_funktion", "refs: []"), goodTest)
	broken := rulesDir(t, ruleText("concat_function", "colour: red"), goodTest)
	failing := rulesDir(t, ruleText("concat_function", "refs: []"), strings.Replace(goodTest, "expect: no_match", "expect: match", 1))
	lost := rulesDir(t, ruleText("concat_function", "refs: []"), strings.Replace(goodTest, "captures/array", "captures/no-array", 1))
	empty := t.TempDir()
	capture := captures + "concat-8.2-stripped.jsonl.zst"
	for _, c := range []struct {
		args string
		code int
		out  string // a part of standard output
		err  string // of standard error
	}{
		{"lint " + good, 0, "1 rule, no problems", ""},
		{"lint " + good + "/own.concat.yaml", 0, "1 rule, no problems", ""},
		{"lint", 0, "no problems", ""},
		{"lint " + misspelt, 1, "own.concat.yaml:13:9 W102 name in no known symbol list: concat_funktion (did you mean concat_function?)", "1 problem found"},
		{"lint --ignore W102 " + misspelt, 0, "no problems", ""},
		{"lint --ignore E002 " + broken, 2, "", "no code of a warning"},
		{"lint " + broken, 1, `own.concat.yaml:5:1 E002 unknown key "colour" in a rule`, ""},
		{"lint " + lost, 1, "E012", ""},
		{"lint " + untested, 1, "W105", ""},
		{"lint " + empty, 2, "", "no rule files"},
		{"lint /no/such/folder", 2, "", "no such file"},
		{"lint " + capture, 2, "", "neither a folder nor a YAML file"},
		{"lint --format xml", 2, "", "--format is text, json or sarif"},
		{"test " + good, 0, "ok   own.concat concat-8.2-stripped.jsonl.zst: match", ""},
		{"test " + good, 0, "note: not under test and matches: mem.array-append on ", ""},
		{"test " + good + "/own.concat.test.yaml", 0, "2 ok, 0 failures", ""},
		{"test " + good + " --rule own.*", 0, "2 ok", ""},
		{"test " + good + " --rule other", 3, "", "no test was selected"},
		{"test " + failing, 1, "FAIL own.concat array-append-8.2-stripped.jsonl.zst: no_match, expected match", "1 failure of 2"},
		{"test " + untested, 1, "FAIL own.concat: no test is about this rule", ""},
		{"test " + broken, 1, "FAIL " + broken + "/own.concat.yaml:5:1 E002", ""},
		{"test " + lost, 1, "no such file", ""},
		{"test " + empty, 3, "", "no test was selected"},
		{"test", 3, "", "no test was selected"},
		{"test /no/such/folder", 2, "", "no such file"},
		{"explain mem.string-concat " + capture, 0, "match via extended", ""},
		{"explain mem.string-concat " + captures + "array-append-8.2-dwarf.jsonl.zst", 0, "extended line 4 wants concat_function, frame #3 is zend_hash_packed_grow", ""},
		{"explain mem.string-cat " + capture, 2, "", "did you mean mem.string-concat?"},
		{"explain mem.string-concat /no/such/file", 2, "", "no such file"},
		{"explain mem.string-concat /etc/passwd", 2, "", "neither a capture of phpwhy nor a backtrace"},
		{"explain mem.string-concat /proc/self/exe", 2, "", "not a core file"},
		{"explain mem.string-concat", 2, "", "takes a rule's id and a capture"},
		{"new", 2, "", "--from is missing"},
		{"new --from " + capture + " --id Bad -o " + empty, 2, "", "no rule id"},
		{"new --from " + capture + " --id mem.recursion -o " + empty, 2, "", "is a built-in rule"},
		{"new --from " + capture + " --not " + capture + " -o " + empty, 1, "", "no rule was written"},
		{"list --label team", 2, "", "--label is NAME=VALUE, not \"team\""},
		{"list --label team=shop", 0, "0 rules in force", ""},
		{"schema --format json", 0, "draft-07", ""},
		{"schema test --format text", 2, "", "--format is json"},
		{"doc --format json --output x " + good, 2, "", "--output is for markdown"},
		{"show mem.recursion", 0, "id: mem.recursion", ""},
		{"show mem.recursio", 2, "", "did you mean mem.recursion?"},
		{"schema rule", 0, "draft-07", ""},
		{"schema other", 2, "", "rule or test"},
		{"coverage " + good, 0, "2 of 2 alternatives exercised", ""},
		{"coverage " + empty, 2, "", "no tests with captures"},
		{"doc " + good, 0, "# own.concat", ""},
		{"bench --stacks 2000 --naive 20 --rules-total 50", 0, "50 rules with ", ""},
		{"bench --no-builtin-rules --stacks 1 --naive 0 --rules-total 1", 0, "1 rule with ", ""},
		{"bench --stacks 0", 2, "", "--stacks"},
		{"frobnicate", 2, "", "there is no command"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := run(t, append([]string{"rules"}, strings.Fields(c.args)...)...)
			if r.code != c.code || !strings.Contains(r.out, c.out) || !strings.Contains(r.err, c.err) {
				t.Errorf("code %d, want %d\n%s\n%s", r.code, c.code, r.out, r.err)
			}
			if c.err != "" && strings.Count(r.err, "\n") != 1 {
				t.Errorf("not one line on standard error: %q", r.err)
			}
		})
	}
}

func decode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// sarif is the part of SARIF 2.1.0 that code hosts look at.
type sarif struct {
	Version string
	Runs    []struct {
		Tool struct {
			Driver struct {
				Name  string
				Rules []struct{ ID string }
			}
		}
		Results []struct {
			RuleID    string
			Level     string
			Message   struct{ Text string }
			Locations []struct {
				PhysicalLocation struct {
					ArtifactLocation struct{ URI string }
					Region           struct{ StartLine, StartColumn int }
				}
			}
		}
	}
}

func TestLintSpeaksJSONAndSARIF(t *testing.T) {
	quiet(t)
	dir := rulesDir(t, ruleText("concat_funktion", "refs: []"), "")
	var doc struct {
		Schema   string
		Rules    int
		Problems []struct {
			File, Code, Level, Message string
			Line, Column               int
		}
	}
	decode(t, run(t, "rules", "lint", "--format", "json", dir).out, &doc)
	if doc.Schema != "phpwhy/lint/v1" || doc.Rules != 1 || len(doc.Problems) != 2 || doc.Problems[1].Code != "W102" || doc.Problems[1].Line != 13 || doc.Problems[1].Column != 9 || doc.Problems[1].Level != "warning" {
		t.Errorf("%+v", doc)
	}
	var s sarif
	decode(t, run(t, "rules", "lint", "--format", "sarif", dir).out, &s)
	if s.Version != "2.1.0" || len(s.Runs) != 1 || len(s.Runs[0].Tool.Driver.Rules) != 2 || len(s.Runs[0].Results) != 2 {
		t.Fatalf("%+v", s)
	}
	r := s.Runs[0].Results[1]
	if at := r.Locations[0].PhysicalLocation; r.RuleID != "W102" || r.Level != "warning" || at.ArtifactLocation.URI != dir+"/own.concat.yaml" || at.Region.StartLine != 13 || at.Region.StartColumn != 9 {
		t.Errorf("%+v", r)
	}
}

func TestTestSpeaksJSONJUnitAndSARIF(t *testing.T) {
	quiet(t)
	dir := rulesDir(t, ruleText("concat_function", "refs: []"), strings.Replace(goodTest, "expect: match", "expect: no_match", 1))
	var doc struct {
		Schema       string
		OK, Failures int
		Cases        []struct {
			Rule, Expect, Verdict, Error string
			OK                           bool
			Line                         int
		}
	}
	r := run(t, "rules", "test", "--format", "json", dir)
	decode(t, r.out, &doc)
	if r.code != 1 || doc.Schema != "phpwhy/rules-test/v1" || doc.OK != 1 || doc.Failures != 1 || doc.Cases[0].Expect != "no_match" || !strings.HasPrefix(doc.Cases[0].Error, "UNEXPECTED match, score") || doc.Cases[0].Line != 3 {
		t.Errorf("%+v", doc)
	}
	var suite struct {
		XMLName  xml.Name `xml:"testsuite"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Cases    []struct {
			Class   string `xml:"classname,attr"`
			Failure *struct {
				Message string `xml:"message,attr"`
			} `xml:"failure"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal([]byte(run(t, "rules", "test", "--format", "junit", dir).out), &suite); err != nil {
		t.Fatal(err)
	}
	if suite.Tests != 2 || suite.Failures != 1 || suite.Cases[0].Failure == nil || suite.Cases[1].Failure != nil || suite.Cases[0].Class != "own.concat" {
		t.Errorf("%+v", suite)
	}
	var s sarif
	decode(t, run(t, "rules", "test", "--format", "sarif", dir).out, &s)
	if len(s.Runs[0].Results) != 1 || s.Runs[0].Results[0].RuleID != "own.concat" || s.Runs[0].Results[0].Locations[0].PhysicalLocation.Region.StartLine != 3 {
		t.Errorf("%+v", s)
	}
}

// TestANewRulePassesItsTestAtOnce makes one of every pasted backtrace and of
// captures of every kind.
// few: of the recorded captures every eighth is tried.
const few = 8

func TestANewRulePassesItsTestAtOnce(t *testing.T) {
	quiet(t)
	files, err := filepath.Glob(pastes + "*.txt")
	if err != nil || len(files) < 13 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	more, err := filepath.Glob(captures + "*.zst")
	if err != nil || len(more) < 20 {
		t.Fatalf("%d captures, %v", len(more), err)
	}
	for i, f := range more {
		if i%few == 0 {
			files = append(files, f)
		}
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			dir := t.TempDir()
			if r := run(t, "rules", "new", "--from", f, "--id", "my.rule", "-o", dir); r.code != 0 || r.err != "" {
				t.Fatalf("%+v", r)
			}
			if r := run(t, "rules", "test", dir); r.code != 0 || !strings.Contains(r.out, "1 ok, 0 failures") {
				t.Errorf("%+v", r)
			}
			// As the line "next:" has it.
			if r := run(t, "rules", "lint", dir); r.code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestANewRuleFromStandardInputAndWithNearMisses(t *testing.T) {
	quiet(t)
	dir := t.TempDir()
	c := exec.Command(phpwhy(t), "rules", "new", "--from", "-", "--id", "my.pasted", "-o", dir, "--format", "json")
	b, err := os.ReadFile(pastes + "concat-8.2.36-stripped.gdb.txt")
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin = bytes.NewReader(b)
	r := finish(t, c, begin(t, c))
	var doc struct {
		Rule    string
		Files   []string
		Similar []struct{ Rule string }
	}
	decode(t, r.out, &doc)
	if doc.Rule != "my.pasted" || len(doc.Files) != 3 || doc.Similar[0].Rule != "mem.string-concat" {
		t.Errorf("%+v", doc)
	}
	if r := run(t, "rules", "new", "--from", pastes+"concat-8.2.36-stripped.gdb.txt", "--id", "my.pasted", "-o", dir); r.code != 2 || !strings.Contains(r.err, "exists; take another --id, or --force") {
		t.Errorf("%+v", r)
	}
	dir = t.TempDir()
	if r := run(t, "rules", "new", "--from", captures+"array-append-8.2-dwarf.jsonl.zst", "--not", captures+"concat-8.2-dwarf.jsonl.zst", "--not", captures+"sleep-8.2-dwarf.jsonl.zst", "--id", "my.rule", "-o", dir); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := run(t, "rules", "test", dir); r.code != 0 || !strings.Contains(r.out, "3 ok, 0 failures") {
		t.Errorf("%+v", r)
	}
	if r := run(t, "rules", "lint", dir); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

func TestOwnRulesAreFoundAndOverrideOnlyByRevision(t *testing.T) {
	config := quiet(t)
	own := filepath.Join(config, "phpwhy", "rules")
	write(t, filepath.Join(own, "own.concat.yaml"), ruleText("concat_function", "labels: {team: shop}"))
	write(t, filepath.Join(own, "broken.yaml"), "id: [\n")
	override := strings.Replace(ruleText("concat_function", "overrides: mem.recursion@REV"), "id: own.concat", "id: mem.recursion", 1)
	write(t, filepath.Join(own, "o.yaml"), strings.Replace(override, "REV", "99", 1))
	r := run(t, "rules", "list")
	for _, want := range []string{"own.concat@1 ", own, "skipped: " + own + "/broken.yaml:1:1 E001", "E011 it overrides mem.recursion@99, but (built-in)/mem.recursion.yaml has revision"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is missing:\n%s", want, r.out)
		}
	}
	// What is skipped shows in reports, and takes nothing else down.
	r = run(t, "match", captures+"recursion-8.2-dwarf.jsonl.zst")
	if !strings.Contains(r.out, "rule: mem.recursion") || strings.Count(r.out, "note: rule skipped: "+own) != 2 {
		t.Error(r.out)
	}
	var doc struct {
		Rules []struct {
			ID, Source, Overrides string
			Revision              int
		}
	}
	decode(t, run(t, "rules", "list", "--format", "json", "--no-builtin-rules", "--label", "team=shop").out, &doc)
	if len(doc.Rules) != 1 || doc.Rules[0].Source != own {
		t.Errorf("%+v", doc)
	}
	decode(t, run(t, "rules", "show", "mem.recursion", "--format", "json").out, &doc)
	write(t, filepath.Join(own, "o.yaml"), strings.Replace(override, "REV", "1", 1))
	if rev := doc.Rules[0].Revision; rev != 1 {
		write(t, filepath.Join(own, "o.yaml"), strings.Replace(override, "REV", string(rune('0'+rev)), 1))
	}
	decode(t, run(t, "rules", "show", "mem.recursion", "--format", "json").out, &doc)
	if doc.Rules[0].Overrides != "(built-in)/mem.recursion.yaml" || doc.Rules[0].Source != own {
		t.Errorf("%+v", doc)
	}
}

func TestMatchReadsCapturesAndPastedStacks(t *testing.T) {
	quiet(t)
	r := run(t, "match", captures+"concat-8.2-stripped.jsonl.zst", pastes+"concat-8.2.36-stripped.gdb.txt", "/no/such/file")
	if r.code != 2 || !strings.Contains(r.out, "rule: mem.string-concat") || !strings.Contains(r.err, "/no/such/file") {
		t.Errorf("%+v", r)
	}
	// One pasted stack shows no growth and no lack of it.
	if !strings.Contains(r.out, "mem.string-concat: missing PHP frames") || !strings.Contains(r.out, "#2  concat_function ()") {
		t.Error(r.out)
	}
	var doc struct {
		Schema       string
		Undetermined []struct{ Rule string }
		Stacks       []struct{ Count int }
	}
	c := exec.Command(phpwhy(t), "match", "-", "--format", "json")
	b, err := os.ReadFile(pastes + "concat-8.2.36-stripped.strace.txt")
	if err != nil {
		t.Fatal(err)
	}
	c.Stdin = bytes.NewReader(b)
	decode(t, finish(t, c, begin(t, c)).out, &doc)
	if doc.Schema != "phpwhy/report/v1" || len(doc.Undetermined) == 0 || len(doc.Stacks) == 0 {
		t.Errorf("%+v", doc)
	}
}

// TestWatchTestsAgainWhenAFileChanges breaks a rule and mends it.
func TestWatchTestsAgainWhenAFileChanges(t *testing.T) {
	quiet(t)
	dir := rulesDir(t, ruleText("concat_function", "refs: []"), goodTest)
	c := exec.Command(phpwhy(t), "rules", "test", "--watch", dir)
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c.Stdout = out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	await := func(text string, times int) {
		t.Helper()
		for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
			b, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(b), text) >= times {
				return
			}
			if time.Now().After(end) {
				_ = c.Process.Kill()
				t.Fatalf("no %q ×%d: %s", text, times, b)
			}
		}
	}
	await("2 ok, 0 failures", 1)
	write(t, filepath.Join(dir, "own.concat.yaml"), ruleText("zend_hash_find", "refs: []"))
	await("1 ok, 1 failure", 1)
	write(t, filepath.Join(dir, "own.concat.yaml"), ruleText("concat_function", "refs: [] # again"))
	await("2 ok, 0 failures", 2)
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("after a good run, Ctrl-C ends with %v", err)
	}
}

// TestTheCatalogueIsThatOfTheRules holds docs/rules against what scripts/generate makes.
func TestTheCatalogueIsThatOfTheRules(t *testing.T) {
	quiet(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "gone.md"), "<!-- made by phpwhy rules doc -->\n")
	write(t, filepath.Join(dir, "mine.md"), "# mine\n")
	if r := run(t, "rules", "doc", "--output", dir, abs(t, "../../rules/builtin"), "--no-builtin-rules"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	for name, want := range map[string]bool{"gone.md": false, "mine.md": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %v", name, err == nil)
		}
	}
	_ = os.Remove(filepath.Join(dir, "mine.md"))
	if out, err := exec.Command("diff", "-ru", "../../docs/rules", dir).CombinedOutput(); err != nil {
		t.Errorf("docs/rules is stale; run make generate\n%s", out)
	}
}
