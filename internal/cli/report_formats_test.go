package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// recordedCapture is one of the captures that the built-in rules are tested with.
func recordedCapture(t *testing.T, name string) string {
	return filepath.Join(testphp.Root(t), "rules/builtin/captures", name+".jsonl.zst")
}

// collected are looks at a pool with two workers: one is in a loop in a
// request, one is idle.
func collected(t *testing.T) (file string, hung int) {
	t.Helper()
	pool := testphp.FPM(t, testphp.StrippedFPM(t), 2)
	hung = pool.Hang(t, testphp.Hang(t, "cpu.php-loop.php"), "token=secret")
	file = filepath.Join(t.TempDir(), "pool.zst")
	r := run(t, "collect", "--pid", fmt.Sprint(pool.Workers[0]), "--pid", fmt.Sprint(pool.Workers[1]), "--every", "200ms", "--for", "1s", "-o", file)
	if r.code != 0 {
		t.Fatalf("collect: exit %d: %s", r.code, r.err)
	}
	return file, hung
}

func TestReportOfARealPoolInEveryFormat(t *testing.T) {
	file, hung := collected(t)
	t.Run("pprof", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "pool.pprof")
		if r := run(t, "report", file, "--format", "pprof", "-o", out); r.code != 0 || r.out != "" {
			t.Fatalf("exit %d: %s%s", r.code, r.out, r.err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		p, err := profile.Parse(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		ids := ""
		for _, m := range p.Mapping {
			ids += m.BuildID + " "
		}
		if id := noteOf(t, testphp.StrippedFPM(t)); !strings.Contains(ids, id) {
			t.Errorf("build-ids %s, without php-fpm's %s", ids, id)
		}
		top := pprofTool(t, "-top", out)
		for _, want := range []string{"Type: events", "rootOf [php]", "execute_ex", "accept"} {
			if !strings.Contains(top, want) {
				t.Errorf("no %q in pprof -top:\n%s", want, top)
			}
		}
		lines := pprofTool(t, "-top", "-lines", out)
		if !regexp.MustCompile(`rootOf \[php\] \S*cpu\.php-loop\.php:[78]\n`).MatchString(lines) {
			t.Errorf("no line of PHP code in pprof -top -lines:\n%s", lines)
		}
		traces := pprofTool(t, "-traces", out)
		for _, want := range []string{"pid:", fmt.Sprint(hung), "kind:", "sample", "uri:"} {
			if !strings.Contains(traces, want) {
				t.Errorf("no %q in pprof -traces:\n%s", want, traces)
			}
		}
		if strings.Contains(traces, "secret") {
			t.Error("the query is in the profile")
		}
	})
	t.Run("html", func(t *testing.T) {
		r := run(t, "report", file, "--format", "html")
		for _, want := range []string{"Content-Security-Policy", "rootOf", fmt.Sprint(hung), "the worker is idle"} {
			if r.code != 0 || !strings.Contains(r.out, want) {
				t.Errorf("exit %d: no %q in the page", r.code, want)
			}
		}
		if strings.Contains(r.out, "secret") {
			t.Error("the query is in the page")
		}
	})
	t.Run("folded", func(t *testing.T) {
		r := run(t, "report", file, "--format", "folded")
		if !strings.Contains(r.out, "rootOf (") || !strings.Contains(r.out, " [php];") {
			t.Errorf("exit %d: %s", r.code, r.out)
		}
	})
	t.Run("speedscope", func(t *testing.T) {
		var f struct{ Profiles []struct{ Name string } }
		if err := json.Unmarshal([]byte(run(t, "report", file, "--format", "speedscope").out), &f); err != nil {
			t.Fatal(err)
		}
		if len(f.Profiles) != 3 { // both workers, and all
			t.Errorf("profiles %+v", f.Profiles)
		}
	})
}

// noteOf is the build-id as readelf prints it.
func noteOf(t *testing.T, file string) string {
	t.Helper()
	out, err := exec.Command(testphp.Require(t, "readelf"), "-n", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`Build ID: ([0-9a-f]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("%s has no build-id", file)
	}
	return string(m[1])
}

func pprofTool(t *testing.T, args ...string) string {
	t.Helper()
	c := exec.Command("go", append([]string{"tool", "pprof", "-nodefraction=0"}, args...)...)
	c.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir(), "DEBUGINFOD_URLS=")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", c.Args, err, out)
	}
	return string(out)
}

func TestReportDiffSaysWhatChanged(t *testing.T) {
	a, b := recordedCapture(t, "fpm-idle-8.2-stripped"), recordedCapture(t, "concat-8.2-stripped")
	text := run(t, "report", "--diff", a, b)
	for _, want := range []string{"A: 1 worker, ", "B: 1 worker, 200 events", "+ new    a string is appended to without end", "- gone   the worker is idle", "0 % → 100 %", "buildReport()"} {
		if text.code != 0 || !strings.Contains(text.out, want) {
			t.Errorf("exit %d: no %q in %s%s", text.code, want, text.out, text.err)
		}
	}
	same := run(t, "report", "--diff", b, b)
	if same.code != 0 || strings.Contains(same.out, "new") || strings.Contains(same.out, "gone") || !strings.Contains(same.out, "= same   a string") {
		t.Errorf("a capture differs from itself: %s", same.out)
	}
	var d struct {
		Schema   string
		Findings []struct{ Change, Rule string }
		Stacks   []struct{ Change string }
		Workers  []struct{ Change string }
	}
	out := run(t, "report", "--diff", a, b, "--format", "json").out
	fits(t, "diff", out)
	fits(t, "diff", run(t, "report", "--diff", b, b, "--format", "json").out)
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	if d.Schema != "phpwhy/diff/v1" || len(d.Findings) != 2 || d.Findings[0].Change != "new" || len(d.Stacks) == 0 || len(d.Workers) != 2 {
		t.Errorf("got %+v", d)
	}
	if f := run(t, "report", "--diff", a, b, "--format", "folded"); !strings.Contains(f.out, "mremap 0 200\n") {
		t.Errorf("folded: %s", f.out)
	}
}

func TestReportRefusesWhatItCanNotWrite(t *testing.T) {
	c := recordedCapture(t, "concat-8.2-stripped")
	oneLine(t, run(t, "report", c, "--format", "svg"), 2, "folded, pprof, speedscope or html")
	oneLine(t, run(t, "report", "--diff", c), 2, "two captures")
	oneLine(t, run(t, "report", "--diff", c, c, "--format", "html"), 2, "text, json or folded")
	oneLine(t, run(t, "report", c, "-o", "/nowhere/x"), 2, "-o")
	oneLine(t, run(t, "report", "--diff", c, "/nowhere/x"), 2, "/nowhere/x")
	full := run(t, "report", c, "--format", "html", "-o", "/dev/full")
	if full.code == 0 {
		t.Error("a full disk is no error")
	}
}

func TestReportFileAppearsWholeOrNotAtAll(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "report.html")
	if err := os.WriteFile(out, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	oneLine(t, run(t, "report", "/nowhere/x", "--format", "html", "-o", out), 2, "/nowhere/x")
	if b, _ := os.ReadFile(out); string(b) != "old" {
		t.Errorf("a report that failed has replaced the file: %q", b)
	}
	if r := run(t, "report", recordedCapture(t, "concat-8.2-stripped"), "--format", "html", "-o", out); r.code != 0 {
		t.Fatal(r.err)
	}
	b, _ := os.ReadFile(out)
	st, err := os.Stat(out)
	left, _ := os.ReadDir(dir)
	if err != nil || !bytes.HasPrefix(b, []byte("<!DOCTYPE html>")) || st.Mode().Perm() != 0o600 || len(left) != 1 {
		t.Errorf("%d bytes, mode %v, %d files", len(b), st.Mode(), len(left))
	}
}
