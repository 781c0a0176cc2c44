package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAFolderThatIsNamedTwiceIsReadOnce(t *testing.T) {
	quiet(t)
	dir := rulesDir(t, ruleText("concat_function", "refs: []"), goodTest)
	override := strings.Replace(ruleText("concat_function", "overrides: mem.recursion@REV"), "id: own.concat", "id: mem.recursion", 1)
	var doc struct{ Rules []struct{ Revision int } }
	decode(t, run(t, "rules", "show", "mem.recursion", "--format", "json").out, &doc)
	over := filepath.Join(t.TempDir(), "over")
	write(t, filepath.Join(over, "o.yaml"), strings.Replace(override, "REV", string(rune('0'+doc.Rules[0].Revision)), 1))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "more", "own.other.yaml"), strings.Replace(ruleText("concat_function", "refs: []"), "own.concat", "own.other", 1))
	write(t, filepath.Join(dir, "more", "own.other.test.yaml"), strings.NewReplacer("own.concat", "own.other", "captures/", "../captures/").Replace(goodTest))
	file := filepath.Join(dir, "own.concat.yaml")
	for _, c := range []struct {
		args string
		code int
		out  string
	}{
		{"lint DIR DIR", 0, "2 rules, no problems"},
		{"lint DIR DIR/.", 0, "2 rules, no problems"},
		{"lint DIR LINK", 0, "2 rules, no problems"},
		{"lint DIR DIR/more", 0, "2 rules, no problems"},
		{"lint DIR/more DIR", 0, "2 rules, no problems"},
		{"lint FILE DIR", 0, "2 rules, no problems"},
		{"lint DIR FILE", 0, "2 rules, no problems"},
		{"lint FILE FILE LINK/own.concat.yaml", 0, "1 rule, no problems"},
		{"lint FILE --rules DIR", 0, "1 rule, no problems"},
		{"lint DIR/more --rules DIR", 0, "1 rule, no problems"},
		{"test FILE --rules DIR --rules DIR", 0, "2 ok, 0 failures"},
		{"list --rules DIR --rules DIR --no-builtin-rules", 0, "2 rules in force"},
		{"list --rules DIR --rules LINK --no-builtin-rules", 0, "2 rules in force"},
		{"list --rules OVER --rules OVER", 0, "(overrides (built-in)/mem.recursion.yaml)"},
	} {
		t.Run(c.args, func(t *testing.T) {
			args := strings.NewReplacer("DIR", dir, "LINK", link, "FILE", file, "OVER", over).Replace(c.args)
			r := run(t, append([]string{"rules"}, strings.Fields(args)...)...)
			if r.code != c.code || !strings.Contains(r.out, c.out) || strings.Contains(r.out, "skipped:") {
				t.Errorf("code %d, want %d\n%s\n%s", r.code, c.code, r.out, r.err)
			}
		})
	}
}

func TestHiddenFoldersHoldNoRules(t *testing.T) {
	quiet(t)
	dir := rulesDir(t, ruleText("concat_function", "refs: []"), goodTest)
	for _, hidden := range []string{".git", "..2026_11_30"} {
		write(t, filepath.Join(dir, hidden, "own.concat.yaml"), ruleText("concat_function", "refs: []"))
		write(t, filepath.Join(dir, hidden, "own.concat.test.yaml"), "rule: gone\ncases: []\n")
	}
	// As Kubernetes mounts a ConfigMap.
	if err := os.Symlink("..2026_11_30", filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"lint", dir}, {"test", dir}, {"lint", filepath.Join(dir, "..data", ".")}} {
		if r := run(t, append([]string{"rules"}, args...)...); strings.Contains(r.out, "E003") || args[1] == dir && r.code != 0 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	// A folder that was named is meant.
	if r := run(t, "rules", "list", "--no-builtin-rules", "--rules", filepath.Join(dir, ".git")); !strings.Contains(r.out, "1 rule in force") {
		t.Errorf("%+v", r)
	}
}

func TestTestsReadCapturesByAbsolutePaths(t *testing.T) {
	quiet(t)
	dir := rulesDir(t, ruleText("concat_function", "refs: []"), strings.ReplaceAll(goodTest, "captures/", abs(t, captures)+"/"))
	if err := os.RemoveAll(filepath.Join(dir, "captures")); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"lint", "test"} {
		if r := run(t, "rules", command, dir); r.code != 0 {
			t.Errorf("%s: %+v", command, r)
		}
	}
}

// TestWatchLooksAtTheFoldersOfRulesFlags changes a rule of --rules; the documents
// stand alone on standard output.
func TestWatchLooksAtTheFoldersOfRulesFlags(t *testing.T) {
	quiet(t)
	dir := rulesDir(t, ruleText("concat_function", "refs: []"), goodTest)
	c := exec.Command(phpwhy(t), "rules", "lint", "--no-builtin-rules", "--rules", dir, "--watch", "--format", "json")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	c.Stdout = out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	documents := func() int {
		b, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), `"schema"`)
	}
	await := func(n int) {
		t.Helper()
		for end := time.Now().Add(limit); documents() < n; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				_ = c.Process.Kill()
				t.Fatalf("%d documents, want %d", documents(), n)
			}
		}
	}
	await(1)
	write(t, filepath.Join(dir, "own.concat.yaml"), ruleText("concat_funktion", "refs: []"))
	await(2)
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait() // the last check found a problem
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(line) == "" || !strings.ContainsAny(line[:1], "{} ") {
			t.Errorf("%q stands between the documents", line)
		}
	}
}

func TestWatchingWhatIsNotThereEnds(t *testing.T) {
	quiet(t)
	for _, command := range []string{"lint", "test"} {
		if r := run(t, "rules", command, "--watch", "/no/such/folder"); r.code != 2 || !strings.Contains(r.err, "no such file") {
			t.Errorf("%s: %+v", command, r)
		}
	}
}

// TestAnExpressionThatFailsIsShownOnceWithItsReason has a rule whose expression costs
// too much on a capture.
func TestAnExpressionThatFailsIsShownOnceWithItsReason(t *testing.T) {
	quiet(t)
	dir := t.TempDir()
	const args = "event.args.all(X, "
	costly := strings.Replace(args, "X", "a", 1) + strings.Replace(args, "X", "b", 1) + strings.Replace(args, "X", "c", 1) +
		strings.Replace(args, "X", "d", 1) + strings.Replace(args, "X", "e", 1) + strings.Replace(args, "X", "f", 1) + "a + b + c + d + e + f >= 0u))))))"
	write(t, filepath.Join(dir, "own.costly.yaml"), "schema: phpwhy/rule/v1\nid: own.costly\ntitle: t\nseverity: low\nmessage: m\nmatch: {expr: \""+costly+"\"}\n")
	capture := captures + "concat-8.2-stripped.jsonl.zst"
	r := run(t, "rules", "explain", "--rules", dir, "own.costly", capture)
	if n := strings.Count(r.out, "cost limit exceeded"); n != 1 {
		t.Errorf("%d times:\n%s", n, r.out)
	}
	r = run(t, "match", "--no-builtin-rules", "--rules", dir, capture)
	if !strings.Contains(r.out, "own.costly: it failed, see the note") || strings.Count(r.out, "cost limit exceeded") != 1 {
		t.Error(r.out)
	}
}

func TestDocSpeaksJSON(t *testing.T) {
	quiet(t)
	dir := rulesDir(t, ruleText("concat_function", "refs: [https://example.org/]\nmaturity: experimental\nexplain: |\n  why\nfix: how"), goodTest)
	var doc []map[string]any
	decode(t, run(t, "rules", "doc", "--format", "json", dir).out, &doc)
	want := map[string]any{"id": "own.concat", "title": "a string grows", "severity": "high", "kind": "cause", "maturity": "experimental",
		"message": "{{site}} grows a string", "explain": "why", "fix": "how", "refs": []any{"https://example.org/"}}
	if len(doc) != 1 || !cmp.Equal(want, doc[0]) {
		t.Errorf("%v", cmp.Diff([]map[string]any{want}, doc))
	}
	decode(t, run(t, "rules", "doc", "--format", "json").out, &doc)
	if len(doc) < 40 {
		t.Errorf("%d rules", len(doc))
	}
}
