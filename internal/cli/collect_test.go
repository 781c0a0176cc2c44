package cli_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// pidList is a list for --pid.
func pidList(pids []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(pids), " ", ","), "[]")
}

func model(t *testing.T, r result) *triage.Model {
	t.Helper()
	var m triage.Model
	if err := json.Unmarshal([]byte(r.out), &m); err != nil {
		t.Fatalf("%v: code %d, %s%s", err, r.code, r.out, r.err)
	}
	return &m
}

// TestCollectNamesTheHolderThatAPoolWaitsFor is the job: many workers, one cause.
func TestCollectNamesTheHolderThatAPoolWaitsFor(t *testing.T) {
	dir := t.TempDir()
	put := func(name, code string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("<?php\n"+code), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	lock := filepath.Join(dir, "x.lock")
	hold := put("Session.php", fmt.Sprintf("$f = fopen('%s', 'c');\nflock($f, LOCK_EX);\necho \"ready\\n\"; flush();\nsleep(600);\n", lock))
	wait := put("wait.php", fmt.Sprintf("$f = fopen('%s', 'c');\necho \"ready\\n\"; flush();\nflock($f, LOCK_EX);\n", lock))
	const waiting = 16
	p := testphp.FPM(t, testphp.StrippedFPM(t), waiting+4)
	holder := p.Hang(t, hold, "")
	for range waiting {
		p.Hang(t, wait, "secret=1")
	}
	p.Hang(t, testphp.Hang(t, "cpu.php-loop.php"), "")
	out := filepath.Join(dir, "c.zst")
	r := run(t, "collect", "--pid", pidList(p.Workers), "--every", "50ms", "--for", "3s", "-o", out)
	want := fmt.Sprintf("%d of %d workers wait for flock on %s, held by pid %d, which is in sleep() at %s:5\n", waiting, waiting+4, lock, holder, hold)
	if r.code != 0 || !strings.HasPrefix(r.out, want) || r.err != "" || strings.Contains(r.out, "secret") {
		t.Errorf("code %d, %s\n%s\nwant %s", r.code, r.err, r.out, want)
	}

	twice := run(t, "report", "--format", "json", out, out)
	fits(t, "triage", twice.out)
	m := model(t, twice)
	if len(m.Workers) != waiting+4 || len(m.Hosts) != 1 || m.Rounds < 2 || m.Summary+"\n" != want || len(m.Sources) != 2 {
		t.Errorf("%d workers on %d hosts, %d rounds: %s", len(m.Workers), len(m.Hosts), m.Rounds, m.Summary)
	}
	if last := m.Groups[len(m.Groups)-1]; last.Rule != "idle.fpm-accept" || len(last.Workers) != 2 {
		t.Errorf("the last group: %+v", last)
	}
	for _, b := range m.Binaries {
		if b.BuildID == "" && b.Path != "[vdso]" {
			t.Errorf("%+v", b)
		}
	}
	conform(t, out)
	killed(t, p.Workers, filepath.Join(dir, "killed.zst"))
}

// TestRulesOfCollectAndReportKnowThePool: one look at one worker can't, and says who can.
func TestRulesOfCollectAndReportKnowThePool(t *testing.T) {
	dir := t.TempDir()
	rule := `schema: phpwhy/rule/v1
id: shop.pool-asleep
title: most of the pool sleeps
severity: high
bind: {n: pool.same_stack, of: pool.workers, rss: proc.rss, in: proc.wchan}
match: {all: [{php: leaf internal sleep}, {expr: 2 * pool.same_stack > pool.workers && proc.rss > 1000000}]}
message: "{{n}} of {{of}}"
`
	if err := os.WriteFile(filepath.Join(dir, "mine.yaml"), []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	p := testphp.FPM(t, testphp.StrippedFPM(t), 5)
	var asleep int
	for range 3 {
		asleep = p.Hang(t, testphp.Hang(t, "sleep.php"), "")
	}
	p.Hang(t, testphp.Hang(t, "cpu.php-loop.php"), "")
	mine := []string{"--rules", dir, "--no-builtin-rules"}
	out := filepath.Join(dir, "c.zst")
	for _, args := range [][]string{
		{"collect", "--pid", pidList(p.Workers), "--every", "50ms", "--for", "300ms", "-o", out, "--format", "json", "--fail-on", "high"},
		{"report", out, "--format", "json", "--fail-on", "high"},
		{"report", out, out, "--format", "json", "--fail-on", "high"},
	} {
		r := run(t, append(args, mine...)...)
		fits(t, "triage", r.out)
		m := model(t, r)
		if r.code != 1 || len(m.Findings) != 1 || len(m.Findings[0].Workers) != 3 || m.Findings[0].Message != "3 of 5" {
			t.Errorf("%q: exit %d, %s: %+v", args, r.code, r.err, m.Findings)
		}
		for _, w := range m.Workers {
			if n, ok := w.Facts["proc.rss"].(float64); !ok || n < 1<<20 {
				t.Errorf("%q: %d has %v bytes in memory", args, w.PID, w.Facts["proc.rss"])
			}
		}
	}
	for format, want := range map[string]string{"text": "the pool's other workers, too: 1; try phpwhy collect\n", "json": "pool.same_stack (needs: phpwhy collect, or phpwhy report "} {
		r := run(t, append([]string{"dump", fmt.Sprint(asleep), "--format", format}, mine...)...)
		if r.code != 0 || !strings.Contains(r.out, want) || strings.Contains(r.out, "try phpwhy attach") {
			t.Errorf("exit %d: %s%s", r.code, r.out, r.err)
		}
	}
}

// schemaOf is what "phpwhy schema" prints of a form, compiled.
func schemaOf(t *testing.T, word string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(run(t, "schema", word).out))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(word+".json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(word + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fits holds what a command printed as JSON against its schema.
func fits(t *testing.T, word, doc string) {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	if err := schemaOf(t, word).Validate(v); err != nil {
		t.Errorf("not as the schema of %s: %v", word, err)
	}
}

// conform holds every line of a real capture against the schema that phpwhy prints.
func conform(t *testing.T, path string) {
	t.Helper()
	s := schemaOf(t, "capture")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	text, err := z.DecodeAll(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]bool)
	for line := range bytes.Lines(text) {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for k := range v.(map[string]any) {
			kinds[k] = true
		}
	}
	for _, k := range []string{"schema", "binary", "process", "stack", "event", "look", "end"} {
		if !kinds[k] {
			t.Errorf("no line with %s", k)
		}
	}
	for _, bad := range []string{`{}`, `{"event":{}}`, `{"end":{"rounds":1,"ended":""},"gone":{"process":0,"round":1}}`, `{"stack":{"id":0,"frames":[{"kind":"native","binary":0}],"end":"root"}}`} {
		v, _ := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		if s.Validate(v) == nil {
			t.Errorf("the schema takes %s", bad)
		}
	}
}

// killed kills a collector with SIGKILL: its file is readable, its workers run on.
func killed(t *testing.T, pids []int, out string) {
	t.Helper()
	c := exec.Command(phpwhy(t), "collect", "--pid", pidList(pids), "--every", "20ms", "-o", out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if st, err := os.Stat(out); err == nil && st.Size() > 4<<10 || time.Now().After(end) {
			break
		}
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	m := model(t, run(t, "report", "--format", "json", out))
	if len(m.Workers) != len(pids) || !m.Sources[0].Truncated {
		t.Errorf("%d workers, truncated %v", len(m.Workers), m.Sources[0].Truncated)
	}
	for _, pid := range pids {
		if st := testphp.State(t, pid); strings.ContainsAny(st, "tT") {
			t.Errorf("%d is left in state %s", pid, st)
		}
	}
}

func TestFramesAreNamedWhereTheSymbolsAre(t *testing.T) {
	strip := testphp.Require(t, "strip")
	php, dir := testphp.DWARF(t), t.TempDir()
	bare := filepath.Join(dir, "php")
	if out, err := exec.Command(strip, "-o", bare, php).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w := testphp.Start(t, bare, testphp.Hang(t, "sleep.php"))
	out := filepath.Join(dir, "c.jsonl")
	if r := run(t, "collect", "--pid", fmt.Sprint(w.PID), "-o", out); r.code != 0 {
		t.Fatal(r.err)
	}
	functions := func(args ...string) (names []string, lines int) {
		m := model(t, run(t, append([]string{"report", "--format", "json", out}, args...)...))
		for i, f := range m.Stacks[0].Frames {
			if f.Kind == "native" && m.Stacks[0].Places[i].Binary >= 0 && m.Binaries[m.Stacks[0].Places[i].Binary].Path == bare {
				names = append(names, f.Function)
				if f.Line > 0 {
					lines++
				}
			}
		}
		return names, lines
	}
	before, lines := functions()
	if slices.Contains(before, "do_cli") || lines > 0 {
		t.Fatalf("named already: %q", before)
	}
	// The program with its symbols is found by its build-id, whatever its name.
	store := filepath.Join(dir, "store")
	b, err := os.ReadFile(php)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(store, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, "php.debug"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	after, lines := functions("--debug-dir", store)
	if !slices.Contains(after, "do_cli") || !slices.Contains(after, "zif_sleep") || slices.Contains(after, "") || lines < 5 {
		t.Errorf("%d lines: %q", lines, after)
	}
	// Another build's file names nothing.
	id, err := hex.DecodeString(build(t, out, bare))
	if err != nil || len(id) == 0 {
		t.Fatal(id, err)
	}
	if err := os.WriteFile(filepath.Join(store, "php.debug"), bytes.ReplaceAll(b, id, bytes.Repeat([]byte{7}, len(id))), 0o644); err != nil {
		t.Fatal(err)
	}
	if other, _ := functions("--debug-dir", store); !slices.Equal(other, before) {
		t.Errorf("%q, want %q", other, before)
	}
}

// build is the build-id that a capture has for a program.
func build(t *testing.T, capture, path string) string {
	t.Helper()
	for _, b := range model(t, run(t, "report", "--format", "json", capture)).Binaries {
		if b.Path == path {
			return b.BuildID
		}
	}
	return ""
}

func TestCollectAndReportRefuse(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		err  string
	}{
		{[]string{"collect", "--pid", "x"}, 2, "a PID is a number"},
		{[]string{"collect", "--match", "("}, 2, "--match"},
		{[]string{"collect", "--pid="}, 2, "--pid is empty"},
		{[]string{"collect", "--match="}, 2, "--match is empty"},
		{[]string{"collect", "--pool="}, 2, "--pool is empty"},
		{[]string{"collect", "--cgroup="}, 2, "--cgroup is empty"},
		{[]string{"collect", "--max-pause", "2"}, 2, "--max-pause"},
		{[]string{"collect", "--every", "-1s"}, 2, "negative"},
		{[]string{"collect", "4242"}, 2, "no arguments"},
		{[]string{"collect", "--engine", "foo"}, 2, "--engine is auto"},
		{[]string{"collect", "--engine", "uprobe", "--break", "mmap"}, 2, "--engine is auto"},
		{[]string{"collect", "--top", "-o", "-"}, 2, "standard output"},
		{[]string{"collect", "--top"}, 2, "terminal"},
		{[]string{"collect", "--pid", "1073741824"}, 3, "no such process"},
		{[]string{"collect", "--match", "no-such-worker-anywhere"}, 3, "no PHP worker found"},
		{[]string{"collect", "-o", "/nosuch/file"}, 2, "-o"},
		{[]string{"report"}, 2, "takes captures"},
		{[]string{"report", "/nosuch"}, 2, "no such file"},
		{[]string{"report", dir}, 2, "folder"},
		{[]string{"report", junk}, 2, "junk is no phpwhy capture\n"},
		{[]string{"report", "--debug-dir", "/nosuch", junk}, 2, "no folder"},
		{[]string{"schema", "x"}, 2, "capture"},
	} {
		r := run(t, c.args...)
		if r.code != c.code || !strings.Contains(r.err, c.err) || r.out != "" || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%q: code %d, %q; want %d, %q", c.args, r.code, r.err, c.code, c.err)
		}
	}
}
