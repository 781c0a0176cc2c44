package builtin_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// Every rule has a script in testdata/hang that hangs as the rule says. Here
// phpwhy attaches to each on real PHP: on Debian's stripped one in make test,
// and under PHPWHY_MATRIX=1 or -update on the others, and to more healthy
// scripts, too.

var update = flag.Bool("update", false, "write docs/rule-coverage.md anew, from a run over all builds")

// php is a build of PHP.
type php struct{ name, bin, fpm string }

func (p php) stripped() bool { return p.name == "8.2 stripped" }

func builds(t *testing.T) []php {
	t.Helper()
	out := []php{{"8.2 stripped", testphp.Stripped(t), "/usr/sbin/php-fpm8.2"}}
	if !*update && os.Getenv("PHPWHY_MATRIX") != "1" {
		return out
	}
	for _, v := range []string{"8.2", "8.4", "7.4"} {
		dir := filepath.Join(testphp.Root(t), ".cache/php", v+"-nts")
		if _, err := os.Stat(dir); err != nil {
			testphp.Missing(t, dir+"; run testdata/php/build "+v+" nts")
		}
		out = append(out, php{v, dir + "/bin/php", dir + "/sbin/php-fpm"})
	}
	return out
}

// hang is a rule with what its script needs.
type hang struct {
	rule   string
	script string // in testdata/hang, without .php; "" for the rule's id
	at     string // part of the line that is to be named; "" for a rule about the process
	// args are PHP's options; ok is false for a build that can't hang this way.
	args func(p php) (args []string, ok bool)
	// start, when not nil, starts something else than the script and returns its pid.
	start   func(t *testing.T, p php) int
	observe []string // instead of attach
	label   string   // of its row beside the rule, instead of the script's name
	// What waits for others needs more: a program of testdata/servers that PHP
	// runs under, and a server there, whose address the script finds in
	// PHPWHY_MYSQL and so on.
	under, server string
	// long says that it needs packages that make test does not install; there its
	// captures will do.
	long bool
}

// name is what it is called in tables.
func (h *hang) name() string {
	if h.label != "" {
		return h.rule + " (" + h.label + ")"
	}
	if h.script != "" {
		return h.script
	}
	return h.rule
}

// opcache is the JIT's configuration; some builds lack it.
func opcache(p php) ([]string, bool) {
	ext := "opcache"
	if !p.stripped() {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(p.bin)), "lib/php/extensions/*/opcache.so"))
		if len(found) != 1 || p.name < "8" {
			return nil, false
		}
		ext = found[0]
	}
	return []string{"-d", "zend_extension=" + ext, "-d", "opcache.enable_cli=1", "-d", "opcache.jit_buffer_size=32M", "-d", "opcache.jit=tracing"}, true
}

// extension is one of Debian's; the other builds have none.
func extension(args ...string) func(php) ([]string, bool) {
	return func(p php) ([]string, bool) { return args, p.stripped() }
}

var hangs = slices.Concat(working, waiting)

var working = []hang{
	{rule: "mem.string-concat", at: `.= "a"`},
	{rule: "mem.string-concat", script: "mem.string-concat-copied", at: `$names .=|$values .=`},
	{rule: "mem.string-rope", at: `$html = "$html`},
	{rule: "mem.array-append", at: `$rows[] = $n`},
	{rule: "mem.array-merge-loop", at: `array_merge(`},
	{rule: "mem.output-buffer", at: `echo str_repeat("$row `},
	{rule: "mem.output-buffer", script: "mem.output-buffer-nested", at: `echo str_repeat("$row `},
	{rule: "mem.recursion", at: `return visit(`},
	{rule: "mem.recursion", script: "mem.recursion-hooks", at: `title($depth)|$filter($value, $depth)|title', 'Home'|usleep(`},
	{rule: "mem.gc-thrash", at: `unset($row, $seen)`},
	{rule: "mem.serialize", at: `serialize($session)`},
	{rule: "mem.unserialize", at: `= unserialize(`},
	{rule: "mem.huge-realloc", at: `stream_get_contents(`},
	{rule: "cpu.php-loop", at: `$parent[$id]`},
	{rule: "cpu.pcre-backtracking", at: `preg_match(`},
	{rule: "cpu.pcre-jit", at: `preg_match(`},
	{rule: "cpu.hash-collision", at: `$byID[`},
	{rule: "cpu.sort", at: `usort(`},
	{rule: "cpu.linear-search", at: `in_array(`},
	{rule: "cpu.string-distance", at: `similar_text($a`},
	{rule: "cpu.password-hash", at: `password_hash(`},
	{rule: "cpu.xpath", at: `->query(`, args: extension("-d", "extension=dom")},
	{rule: "cpu.feof-loop", at: `feof($connection)|= fgets(`},
	{rule: "cpu.jit-loop", at: `$parent[$id]`, args: opcache},
	{rule: "cpu.starved", start: starved, observe: []string{"attach", "--for", "2s"}},
	{rule: "deadlock.signal-malloc", at: `$libc->malloc(3000)|$libc->free(`, args: extension("-d", "extension=ffi", "-d", "ffi.enable=1")},
	{rule: "stopped.signal", start: stopped},
	{rule: "stopped.by-tracer", start: traced, observe: []string{"dump", "--no-stop"}},
	{rule: "idle.fpm-accept", start: idle},
}

func init() {
	for _, h := range waits {
		// It is the samples that tell one wait from many, and a busy machine takes few.
		h.observe = []string{"attach", "--for", "2s"}
		hangs = append(hangs, h)
	}
}

// stopped starts a worker and stops it.
func stopped(t *testing.T, p php) int {
	w := testphp.Start(t, p.bin, testphp.Hang(t, "cpu.php-loop.php"))
	if err := syscall.Kill(w.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, w.PID, "State:\tT")
	return w.PID
}

// starved starts a worker whose processor another loop has nearly all the time.
func starved(t *testing.T, p php) int {
	w := testphp.Start(t, p.bin, testphp.Hang(t, "cpu.php-loop.php"))
	testphp.Starve(t, w.PID)
	return w.PID
}

// traced starts a worker that gdb holds.
func traced(t *testing.T, p php) int {
	t.Helper()
	return held(t, p.bin, testphp.Hang(t, "cpu.php-loop.php"))
}

func held(t *testing.T, bin, script string) int {
	t.Helper()
	gdb := testphp.Require(t, "gdb")
	w := testphp.Start(t, bin, script)
	c := exec.Command(gdb, "-q", "-nx", "-ex", fmt.Sprintf("attach %d", w.PID))
	in, err := c.StdinPipe() // it waits for a command
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = in.Close(); _ = c.Wait() })
	await(t, w.PID, "State:\tt")
	return w.PID
}

// idle starts a php-fpm whose worker has no request.
func idle(t *testing.T, p php) int {
	if _, err := os.Stat(p.fpm); err != nil {
		testphp.Missing(t, p.fpm)
	}
	return testphp.FPM(t, p.fpm, 1).Workers[0]
}

// await waits until /proc/PID/status has a line that begins so.
func await(t *testing.T, pid int, line string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && strings.Contains(string(b), "\n"+line) {
			return
		}
	}
	t.Fatalf("process %d: no %q in its status", pid, line)
}

// program builds phpwhy.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "phpwhy")
	c := exec.Command("go", "build", "-o", bin, "./cmd/phpwhy")
	c.Dir = testphp.Root(t)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

// found is a finding in phpwhy's JSON.
type found struct {
	Rule, Severity, Message string
	PHP                     struct {
		File string
		Line int
	}
}

// settled is how long a script hangs before phpwhy looks, watched for how long
// it looks at most.
const (
	settled = 300 * time.Millisecond
	watched = "1s"
)

func findings(t *testing.T, phpwhy string, pid int, observe []string) []found {
	t.Helper()
	if observe == nil {
		observe = []string{"attach", "--for", watched}
	}
	args := append(append([]string{}, observe...), "--format", "json", fmt.Sprint(pid))
	out, err := exec.Command(phpwhy, args...).Output()
	var rep struct{ Findings []found }
	if jerr := json.Unmarshal(out, &rep); err != nil || jerr != nil {
		if e, ok := err.(*exec.ExitError); ok {
			t.Fatalf("phpwhy %v: %v: %s", args, err, e.Stderr)
		}
		t.Fatalf("phpwhy %v: %v, %v: %s", args, err, jerr, out)
	}
	return rep.Findings
}

// lines are those of a script that have one of the parts in them.
func lines(t *testing.T, script, parts string) (out []int) {
	t.Helper()
	b, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(b), "\n") {
		for part := range strings.SplitSeq(parts, "|") {
			if strings.Contains(line, part) {
				out = append(out, i+1)
				break
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no %q", script, parts)
	}
	return out
}

func TestEachRuleNamesItsHang(t *testing.T) {
	if os.Getuid() != 0 {
		testphp.Missing(t, "root")
	}
	phpwhy := program(t)
	all := builds(t)
	cells := make(map[string]map[string]string)
	pairs := abreast{t: t, turn: make(chan struct{}, 2)}
	for _, h := range hangs {
		if h.long && len(all) == 1 {
			continue
		}
		row := make(map[string]string)
		cells[h.name()] = row
		for _, p := range all {
			pairs.run(h.single(), h.name()+"/"+p.name, row, p.name, func(t *testing.T) (string, bool) { return h.try(t, phpwhy, p) })
		}
	}
	healthy := make(map[string]map[string]string)
	scripts, err := filepath.Glob(filepath.Join(testphp.Root(t), "testdata/healthy/*.php"))
	if err != nil || len(scripts) < 10 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for _, script := range scripts {
		name := filepath.Base(script)
		if len(all) == 1 && !temptations[name] {
			continue // the captures of them will do
		}
		row := make(map[string]string)
		healthy[name] = row
		for _, p := range all {
			pairs.run(true, "healthy "+name+"/"+p.name, row, p.name, func(t *testing.T) (string, bool) { return calm(t, phpwhy, script, p) })
		}
	}
	pairs.wait()
	if *update && !t.Failed() {
		write(t, all, cells, scripts, healthy)
	}
}

// file is the hang's script.
func (h *hang) file(t *testing.T) string {
	name := h.script
	if name == "" {
		name = h.rule
	}
	return testphp.Hang(t, name+".php")
}

// begin starts the hang and returns the worker's pid, or cannot.
func (h *hang) begin(t *testing.T, p php) int {
	t.Helper()
	var pid int
	if h.start != nil {
		pid = h.start(t, p)
	} else {
		if !h.single() {
			shared(t)
		}
		var args []string
		if h.args != nil {
			var ok bool
			if args, ok = h.args(p); !ok {
				return cannot
			}
		}
		if h.server != "" {
			t.Setenv("PHPWHY_"+strings.ToUpper(h.server), testphp.Server(t, h.server))
		}
		if h.under != "" {
			under := filepath.Join(testphp.Root(t), "testdata/servers", h.under)
			pid = testphp.StartCommand(t, append(append([]string{under, p.bin, "-n"}, args...), h.file(t))...).PID
		} else {
			pid = testphp.Start(t, p.bin, h.file(t), args...).PID
		}
	}
	time.Sleep(settled)
	return pid
}

// try runs a hang and says what phpwhy found.
func (h *hang) try(t *testing.T, phpwhy string, p php) (cell string, ok bool) {
	pid := h.begin(t, p)
	if pid == cannot {
		return "–", true
	}
	fs := findings(t, phpwhy, pid, h.observe)
	if len(fs) == 0 && h.observe == nil {
		// A busy host has too few samples in that time to say that a wait lasts.
		fs = findings(t, phpwhy, pid, []string{"attach"})
	}
	if !testphp.Alive(pid) {
		return "the worker died", false
	}
	if len(fs) == 0 {
		return "no finding", false
	}
	f := fs[0]
	t.Log(f.Message)
	if f.Rule != h.rule {
		return "**" + f.Rule + "**", false
	}
	if h.at == "" {
		return "yes", true
	}
	script := h.file(t)
	for _, n := range lines(t, script, h.at) {
		if f.PHP.File == script && f.PHP.Line == n {
			return "yes, line right", true
		}
	}
	return fmt.Sprintf("yes, **line %d of %s**", f.PHP.Line, filepath.Base(f.PHP.File)), false
}

// temptations are the healthy scripts that look most like hangs.
var temptations = map[string]bool{"mandelbrot.php": true, "lists.php": true, "lookups.php": true, "objects.php": true}

// calm runs a healthy script, which no rule may call a hang.
func calm(t *testing.T, phpwhy, script string, p php) (cell string, ok bool) {
	var args []string
	switch filepath.Base(script) {
	case "json.php":
		if p.name < "8" {
			return "–", true
		}
	case "documents.php":
		if !p.stripped() {
			return "–", true
		}
		args = []string{"-d", "extension=dom"}
	}
	pid := testphp.Start(t, p.bin, script, args...).PID
	time.Sleep(settled)
	fs := findings(t, phpwhy, pid, nil)
	if len(fs) == 0 {
		return "nothing", true
	}
	f := fs[0]
	if f.Severity == "low" || f.Severity == "info" {
		return f.Rule + " (" + f.Severity + ")", true
	}
	return fmt.Sprintf("**%s** (%s): %s", f.Rule, f.Severity, f.Message), false
}

// write puts the tables into the documentation.
func write(t *testing.T, all []php, cells map[string]map[string]string, scripts []string, healthy map[string]map[string]string) {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# What the built-in rules were tried on

Each rule has a script in ` + "`testdata/hang`" + ` that hangs as the rule says; some have several. phpwhy was attached to each on real PHP
(` + "`--for " + watched + "`" + `; the waits: ` + "`--for 2s`" + `), and its first finding compared: is it this rule, and is the line the one that hangs? "8.2 stripped" is
Debian's package without symbols; the others were built with DWARF. "–" is a build that lacks the extension, or cannot hang this way.
` + "`go test ./rules/builtin -run EachRule -update`" + ` tries it again and writes this file.

`)
	table(&b, "rule, or a script of it", all, len(hangs), func(i int) (string, map[string]string) { return hangs[i].name(), cells[hangs[i].name()] })
	b.WriteString(`
## Healthy work

What was found in scripts that work as they should (` + "`testdata/healthy`" + `), each without end. A finding of severity low says where
the time goes, not that something is wrong; anything above that would be a false alarm. Programs that many use were
watched for 3 s each, and their captures are tests (` + "`make captures ONLY=healthy`" + ` records them anew): Debian's composer while it
resolves versions and while it makes a class map, and Debian's phpunit at 40,000 tests. Nothing was found in them.

`)
	table(&b, "script", all, len(scripts), func(i int) (string, map[string]string) {
		name := filepath.Base(scripts[i])
		return name, healthy[name]
	})
	if err := os.WriteFile(filepath.Join(testphp.Root(t), "docs/rule-coverage.md"), []byte(b.String()), 0o644); err != nil { //nolint:gosec // documentation
		t.Fatal(err)
	}
}

func table(b *strings.Builder, head string, all []php, n int, row func(int) (string, map[string]string)) {
	fmt.Fprintf(b, "| %s |", head)
	for _, p := range all {
		fmt.Fprintf(b, " %s |", p.name)
	}
	b.WriteString("\n|" + strings.Repeat(" --- |", len(all)+1) + "\n")
	for i := range n {
		name, cells := row(i)
		fmt.Fprintf(b, "| `%s` |", name)
		for _, p := range all {
			fmt.Fprintf(b, " %s |", cells[p.name])
		}
		b.WriteString("\n")
	}
}
