package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

var buildOnce = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "phpwhy-test")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "phpwhy")
	// Another user must be able to run it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", bin, "github.com/phpwhy/phpwhy/cmd/phpwhy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as scripts/build: it must run in any container
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := buildOnce(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

func phpwhy(t testing.TB) string {
	t.Helper()
	bin, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// result is what a run of phpwhy came to.
type result struct {
	out, err string
	code     int
}

const (
	limit = 60 * time.Second
	// grown is how long a worker is left alone until nobody would call what it
	// holds ordinary.
	grown = 700 * time.Millisecond
)

func run(t testing.TB, args ...string) result {
	t.Helper()
	c := exec.Command(phpwhy(t), args...)
	return finish(t, c, begin(t, c))
}

type buffers struct{ out, err bytes.Buffer }

func begin(t testing.TB, c *exec.Cmd) *buffers {
	t.Helper()
	b := &buffers{}
	c.Stdout, c.Stderr = &b.out, &b.err
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return b
}

func finish(t testing.TB, c *exec.Cmd, b *buffers) result {
	t.Helper()
	hung := time.AfterFunc(limit, func() { _ = c.Process.Signal(syscall.SIGQUIT) })
	err := c.Wait()
	if !hung.Stop() {
		t.Fatalf("phpwhy %v hung: %s", c.Args, b.err.String())
	}
	r := result{b.out.String(), b.err.String(), 0}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	if strings.Contains(r.err, "goroutine ") {
		t.Fatalf("phpwhy %v panicked: %s", c.Args, r.err)
	}
	return r
}

// reported is the part of phpwhy/report/v1 that these tests look at.
type reported struct {
	Target struct {
		PID        int
		Cmdline    string
		Exe        string
		PHPVersion string `json:"php_version"`
		SAPI       string
		Symbols    string
		Layout     string
	}
	Observation struct {
		Engine     string
		Stops      int
		Samples    int
		PausedUS   int64 `json:"paused_us_max"`
		DurationMS int64 `json:"duration_ms"`
	}
	Findings []struct {
		Rule       string
		Confidence float64
		PHP        struct {
			Function, File string
			Line           int
		}
	}
	Notes  []string
	Stacks []struct {
		Count  int
		Kind   string
		End    string
		Error  string
		Frames []struct {
			Kind, Function, File string
			Line                 int
		}
	}
}

func parse(t testing.TB, r result) reported {
	t.Helper()
	var rep reported
	if err := json.Unmarshal([]byte(r.out), &rep); err != nil {
		t.Fatalf("exit %d, stderr %q: %v: %s", r.code, r.err, err, r.out)
	}
	return rep
}

// lineOf finds the line of a script that a marker stands in.
func lineOf(t testing.TB, path, marker string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		if strings.Contains(line, marker) {
			return n
		}
	}
	t.Fatalf("%s has no %q", path, marker)
	return 0
}

func TestAttachNamesTheCauseAndTheLine(t *testing.T) {
	for _, b := range []struct {
		name string
		php  func(testing.TB) string
		args []string
	}{
		{"stripped", testphp.Stripped, nil},
		{"stripped with xdebug", testphp.Stripped, []string{"-d", "zend_extension=xdebug", "-d", "xdebug.mode=develop"}},
		{"dwarf", testphp.DWARF, nil},
	} {
		for _, h := range []struct{ rule, marker string }{
			{"mem.string-concat", ".= "},
			{"mem.array-append", "[] = "},
			{"mem.recursion", "return visit("},
			{"cpu.php-loop", ""},
		} {
			if h.rule == "mem.recursion" && b.args != nil {
				continue // with xdebug a PHP call takes C stack, and the script crashes by itself
			}
			t.Run(b.name+"/"+h.rule, func(t *testing.T) {
				script := testphp.Hang(t, h.rule+".php")
				w := testphp.Start(t, b.php(t), script, b.args...)
				time.Sleep(grown)
				rep := parse(t, run(t, "attach", fmt.Sprint(w.PID), "--format", "json"))
				if len(rep.Findings) == 0 || rep.Findings[0].Rule != h.rule {
					t.Fatalf("found %+v, want %s; notes %v", rep.Findings, h.rule, rep.Notes)
				}
				f := rep.Findings[0]
				if f.PHP.File != script || h.marker != "" && f.PHP.Line != lineOf(t, script, h.marker) {
					t.Errorf("it is at %s:%d, want line %d of %s", f.PHP.File, f.PHP.Line, lineOf(t, script, h.marker), script)
				}
				if !testphp.Alive(w.PID) {
					t.Error("the worker is dead")
				}
			})
		}
	}
}

func TestAttachWorksOnAPHPFPMWorker(t *testing.T) {
	for name, fpm := range map[string]func(testing.TB) string{"stripped": testphp.StrippedFPM, "dwarf": testphp.DWARFFPM} {
		t.Run(name, func(t *testing.T) {
			p := testphp.FPM(t, fpm(t), 2)
			script := testphp.Hang(t, "mem.string-concat.php")
			pid := p.Hang(t, script, "id=7")
			time.Sleep(grown)
			r := run(t, "attach", fmt.Sprint(pid), "--format", "json")
			rep := parse(t, r)
			if len(rep.Findings) == 0 || rep.Findings[0].Rule != "mem.string-concat" || rep.Target.SAPI != "fpm-fcgi" {
				t.Fatalf("sapi %s, findings %+v", rep.Target.SAPI, rep.Findings)
			}
			if !strings.Contains(r.out, "id=7") {
				t.Error("the request's URI is missing")
			}
		})
	}
}

func TestAttachObservesACommandFromItsStart(t *testing.T) {
	script := testphp.Hang(t, "mem.string-concat.php")
	for _, engine := range []string{"hwbp", "int3"} {
		for name, limit := range map[string]string{"that ends by itself": "64M", "that hangs": "-1"} {
			t.Run(engine+" a command "+name, func(t *testing.T) {
				r := run(t, "attach", "--format", "json", "--engine", engine, "--", testphp.Stripped(t), "-n", "-d", "memory_limit="+limit, script)
				rep := parse(t, r)
				if r.code != 0 || len(rep.Findings) == 0 || rep.Findings[0].Rule != "mem.string-concat" {
					t.Errorf("exit %d: %s: findings %+v, %d stops, notes %v", r.code, r.err, rep.Findings, rep.Observation.Stops, rep.Notes)
				}
				if testphp.Alive(rep.Target.PID) {
					t.Error("the command was left running")
				}
			})
		}
	}
	// Most PHP programs begin with #!/usr/bin/env php; others with a shell that calls exec.
	env := filepath.Join(t.TempDir(), "tool")
	if err := os.WriteFile(env, []byte("#!/usr/bin/env php8.2\n<?php\nfunction work() { sleep(100); }\nwork();\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	testphp.Require(t, "php8.2")
	for _, argv := range [][]string{{env}, {"sh", "-c", "cd / && true | true && exec env php8.2 -n " + env}} {
		rep := parse(t, run(t, append([]string{"attach", "--format", "json", "--for", "1s", "--"}, argv...)...))
		if len(rep.Findings) == 0 || rep.Findings[0].Rule != "wait.sleep" || rep.Findings[0].PHP.Function != "work" || testphp.Alive(rep.Target.PID) {
			t.Errorf("%q: %+v, notes %v", argv, rep.Findings, rep.Notes)
		}
	}
	for args, want := range map[string]struct {
		code int
		say  string
	}{"true": {3, "not PHP"}, "sleep 5": {3, "not PHP"}, "/nonexistent/php": {2, "/nonexistent/php"}, "nosuchprogram": {2, "a program"}, "/etc/passwd": {2, "a program"}, "/tmp": {2, "a program"}} {
		oneLine(t, run(t, append([]string{"attach", "--"}, strings.Fields(args)...)...), want.code, want.say)
	}
}

// Extensions are loaded long after the observation of a command has begun. Xdebug's
// function stands between those of the engine on every stack.
func TestWhatACommandLoadsLaterHasItsNames(t *testing.T) {
	testphp.Require(t, "php8.2")
	r := run(t, "attach", "--format", "json", "--for", "2s", "--", testphp.Stripped(t), "-n", "-d", "zend_extension=xdebug", "-d", "extension=ctype",
		testphp.Hang(t, "cpu.php-loop.php"))
	var rep struct {
		Stacks []struct {
			Kind, End, Error string
			Frames           []struct{ Kind, Function, Module, How string }
		}
	}
	if err := json.Unmarshal([]byte(r.out), &rep); err != nil {
		t.Fatalf("%v: %s", err, r.err)
	}
	samples, xdebug := 0, 0
	for i, s := range rep.Stacks {
		if s.End != "root" || s.Error != "" {
			t.Errorf("stack %d, a %s: end %q, error %q", i, s.Kind, s.End, s.Error)
		}
		if s.Kind == "sample" {
			samples++
		}
		for _, f := range s.Frames {
			if f.Kind == "native" && (f.Module == "" || f.How == "scan") {
				t.Errorf("stack %d, a %s: frame %+v", i, s.Kind, f)
			}
			if f.Module == "xdebug.so" {
				xdebug++
			}
		}
	}
	if samples == 0 || xdebug == 0 {
		t.Errorf("%d stacks of samples, %d frames of xdebug: %s", samples, xdebug, r.err)
	}
}

func TestAStoppedWorkerStaysStopped(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	if err := syscall.Kill(w.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if strings.HasPrefix(status(w.PID, "State"), "T") {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	for _, args := range [][]string{{"dump"}, {"attach", "--for", "300ms"}, {"attach", "--for", "300ms", "--engine", "int3"}} {
		r := run(t, append(args, fmt.Sprint(w.PID))...)
		if r.code != 0 || !strings.Contains(r.out, "buildReport()") {
			t.Errorf("%v: exit %d: %s %s", args, r.code, r.err, r.out)
		}
		if s := status(w.PID, "State"); !strings.HasPrefix(s, "T (stopped)") {
			t.Errorf("after %v the worker is in state %s", args, s)
		}
	}
}

func TestATracedWorkerNamesItsTracer(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	c := exec.Command(testphp.Require(t, "strace"), "-o", "/dev/null", "-p", fmt.Sprint(w.PID))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	observing(t, w.PID)
	for _, cmd := range []string{"dump", "attach"} {
		oneLine(t, run(t, cmd, fmt.Sprint(w.PID)), 4, fmt.Sprintf("traced by %d", c.Process.Pid))
	}
}

// contract are the fields of phpwhy/report/v1 that programs rely on.
var contract = []string{
	"findings[].confidence", "findings[].evidence[].from_bytes", "findings[].evidence[].n", "findings[].evidence[].to_bytes",
	"findings[].evidence[].what", "findings[].fix", "findings[].kind", "findings[].matched", "findings[].message", "findings[].of",
	"findings[].php.class", "findings[].php.file", "findings[].php.function", "findings[].php.line", "findings[].rule",
	"findings[].severity", "findings[].title",
	"observation.breakpoints[].addr", "observation.breakpoints[].hits", "observation.breakpoints[].module", "observation.breakpoints[].symbol",
	"observation.duration_ms", "observation.engine", "observation.paused_us_max", "observation.paused_us_total", "observation.samples",
	"observation.stops", "schema",
	"stacks[].count", "stacks[].end", "stacks[].error", "stacks[].frames[].args[].name", "stacks[].frames[].args[].value",
	"stacks[].frames[].class", "stacks[].frames[].file", "stacks[].frames[].function", "stacks[].frames[].how", "stacks[].frames[].inlined",
	"stacks[].frames[].internal", "stacks[].frames[].kind", "stacks[].frames[].line", "stacks[].frames[].module", "stacks[].frames[].offset",
	"stacks[].frames[].opcode", "stacks[].frames[].pc", "stacks[].frames[].raw", "stacks[].kind",
	"target.cmdline", "target.debug_build", "target.exe", "target.layout", "target.php_version", "target.pid",
	"target.request.age_ms", "target.request.method", "target.request.script", "target.request.uri", "target.sapi", "target.symbols", "target.zts",
}

func TestTheJSONReportHasEveryFieldOfTheContract(t *testing.T) {
	p := testphp.FPM(t, testphp.StrippedFPM(t), 1)
	pid := p.Hang(t, testphp.Hang(t, "mem.string-concat.php"), "")
	time.Sleep(grown)
	r := run(t, "attach", fmt.Sprint(pid), "--format", "json")
	var v any
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatal(err)
	}
	have := make(map[string]bool)
	leaves("", v, have)
	for _, want := range contract {
		if !have[want] {
			t.Errorf("%s is missing", want)
		}
	}
	if t.Failed() {
		var all []string
		for k := range have {
			all = append(all, k)
		}
		sort.Strings(all)
		t.Logf("there are %v", all)
	}
}

func leaves(path string, v any, into map[string]bool) {
	switch x := v.(type) {
	case map[string]any:
		for k, c := range x {
			leaves(strings.TrimPrefix(path+"."+k, "."), c, into)
		}
	case []any:
		for _, c := range x {
			leaves(path+"[]", c, into)
		}
	default:
		into[path] = true
	}
}

func TestDumpShowsWhereAWorkerWaits(t *testing.T) {
	script := testphp.Hang(t, "recursion50.php")
	w := testphp.Start(t, testphp.Stripped(t), script)
	rep := parse(t, run(t, "dump", fmt.Sprint(w.PID), "--format", "json"))
	if len(rep.Stacks) != 1 || rep.Stacks[0].End != "root" || rep.Stacks[0].Error != "" {
		t.Fatalf("stacks %+v", rep.Stacks)
	}
	var php []string
	for _, f := range rep.Stacks[0].Frames {
		if f.Kind == "php" {
			php = append(php, f.Function)
		}
	}
	if len(php) != 53 && len(php) < 51 || php[len(php)-1] != "{main}" {
		t.Errorf("%d PHP frames: %v", len(php), php)
	}
}

func TestDumpOfSeveralKeepsTheGoodOnes(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	r := run(t, "dump", "999999999", fmt.Sprint(w.PID))
	if r.code != 3 || !strings.Contains(r.err, "999999999") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("exit %d: %q", r.code, r.err)
	}
	if !strings.Contains(r.out, "sleep") {
		t.Errorf("the good one is missing: %s", r.out)
	}
}

func TestWhatCannotBeObservedIsToldInOneLine(t *testing.T) {
	sleep := testphp.StartCommand(t, "sh", "-c", "echo ready; exec sleep 1000")
	zombie := testphp.StartCommand(t, "sh", "-c", "echo ready")
	testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	for _, tt := range []struct {
		name string
		pid  string
		code int
		say  string
	}{
		{"no such pid", "999999999", 3, "no such process"},
		{"a zombie", fmt.Sprint(zombie.PID), 3, "zombie"},
		{"a kernel thread", "2", 3, "kernel thread"},
		{"not PHP", fmt.Sprint(sleep.PID), 3, "not PHP"},
		{"no number", "www", 2, "number"},
		{"a negative pid", "-7", 2, "-7"},
		{"itself as target", "0", 3, "no such process"},
	} {
		for _, cmd := range []string{"attach", "dump"} {
			t.Run(cmd+" "+tt.name, func(t *testing.T) {
				if tt.pid == "2" {
					if b, _ := os.ReadFile("/proc/2/comm"); string(b) != "kthreadd\n" {
						t.Skip("pid 2 is no kernel thread in this pid namespace")
					}
				}
				if tt.name == "a zombie" {
					awaitZombie(t, zombie.PID)
				}
				oneLine(t, run(t, cmd, tt.pid), tt.code, tt.say)
			})
		}
	}
}

func awaitZombie(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if strings.Contains(string(b), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it is no zombie")
}

func oneLine(t *testing.T, r result, code int, say string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.err, say) {
		t.Errorf("exit %d, want %d with %q: %s", r.code, code, say, r.err)
	}
	if r.out != "" || strings.Count(r.err, "\n") != 1 || !strings.HasPrefix(r.err, "phpwhy: ") {
		t.Errorf("stdout %q, stderr %q; want one line on stderr", r.out, r.err)
	}
}

func TestAnotherUsersProcessIsForbidden(t *testing.T) {
	if os.Geteuid() != 0 {
		testphp.Missing(t, "root, to become another user")
	}
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	for _, cmd := range []string{"attach", "dump"} {
		c := exec.Command(phpwhy(t), cmd, fmt.Sprint(w.PID))
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		oneLine(t, finish(t, c, begin(t, c)), 4, "run as root")
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"atach"}, {"attach"}, {"attach", "1", "2"}, {"attach", "--"}, {"attach", "1", "--", "php"}, {"attach", "1", "--for", "x"},
		{"attach", "1", "--for", "0s"}, {"attach", "1", "--stops", "0"}, {"attach", "1", "--engine", "magic"},
		{"attach", "--engine", "uprobe", "--", "php"}, {"attach", "1", "--engine", "uprobe", "--values"}, {"attach", "1", "--engine", "uprobe", "--var", "a@b.php"},
		{"attach", "1", "--max-pause", "200%"}, {"attach", "1", "--format", "xml"}, {"attach", "1", "--rules", "/nonexistent"},
		{"attach", "1", "--capture", "/nonexistent/dir/file"}, {"dump"}, {"dump", "x"}, {"version", "x"}, {"schema"}, {"schema", "rule"}, {"--nonsense"},
		{"attach", "1", "--max-pause", "NaN%"}, {"attach", "1", "--max-pause", "-1%"}, {"attach", "99999999999999999999"},
		{"attach", "1", "--engine", "syscall", "--break", "malloc"}, {"help", "nosuch"}, {"completion", "xsh"}, {"completion"},
		{"doctor", "x"}, {"doctor", "1", "2"}, {"doctor", "0"}, {"doctor", "--format", "xml"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			r := run(t, args...)
			if r.code != 2 || !strings.HasPrefix(lastLine(r.err), "phpwhy: ") {
				t.Errorf("exit %d: %s", r.code, r.err)
			}
		})
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// A function that the C library lacks, or too many for the processor, is a mistake
// in the command line and not in the worker.
func TestBreakpointsThatCannotBeAreUsageErrors(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	oneLine(t, run(t, "attach", fmt.Sprint(w.PID), "--break", "bogus_fn"), 2, "bogus_fn")
	many := strings.Fields("mmap mremap munmap read write open close poll send recv accept bind listen lseek dup dup2 pipe")
	oneLine(t, run(t, "attach", fmt.Sprint(w.PID), "--engine", "hwbp", "--break", strings.Join(many, ",")), 2, "int3")
	twice := run(t, "attach", fmt.Sprint(w.PID), "--engine", "hwbp", "--break", strings.Repeat("mmap,", 20)+"mremap", "--for", "200ms")
	if twice.code != 0 || strings.Count(twice.out, "breakpoint mmap") != 1 {
		t.Errorf("a function named twice: exit %d, %s%s", twice.code, twice.err, twice.out)
	}
}

func TestASampledLoopIsNoSingleLook(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	r := run(t, "attach", fmt.Sprint(w.PID), "--break=", "--for", "1s")
	if r.code != 0 || strings.Contains(r.out, "one look") || !strings.Contains(r.out, "samples") {
		t.Errorf("exit %d: %s", r.code, r.out)
	}
}

// Whoever mistypes a pid has not asked to lose what the last observation recorded.
func TestAnObservationThatFailsLeavesTheCaptureAsItWas(t *testing.T) {
	dir := t.TempDir()
	old, made := filepath.Join(dir, "old.jsonl"), filepath.Join(dir, "new.jsonl.zst")
	if err := os.WriteFile(old, []byte("precious\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{old, made} {
		oneLine(t, run(t, "attach", "4194303", "--capture", file), 3, "no such process")
	}
	if b, err := os.ReadFile(old); err != nil || string(b) != "precious\n" {
		t.Errorf("it has %q, %v", b, err)
	}
	if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty file was left: %v", err)
	}
}

func TestVersion(t *testing.T) {
	if a, b := run(t, "--version"), run(t, "version"); a.code != 0 || a.out != b.out {
		t.Errorf("exit %d: %q, not %q", a.code, a.out, b.out)
	}
	r := run(t, "version")
	if r.code != 0 || !regexp.MustCompile(`^phpwhy \S+ linux/\w+ go1\.\S+\n$`).MatchString(r.out) {
		t.Errorf("exit %d: %q", r.code, r.out)
	}
}

func TestSchemaIsTheOneAskedFor(t *testing.T) {
	for _, name := range []string{"report", "triage", "diff", "doctor", "finding", "capture"} {
		r := run(t, "schema", name)
		var v map[string]any
		if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != 0 || v["$schema"] == nil || !strings.Contains(v["$id"].(string), "/"+name+"-v") {
			t.Errorf("%s: exit %d, %v: %.80s", name, r.code, err, r.out)
		}
	}
}

func TestUsersRulesAreReadAndABrokenOneIsNamed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"mine.yaml":   "schema: phpwhy/rule/v1\nid: shop.sleepy\ntitle: it sleeps\nseverity: low\nmatch: {php: leaf internal sleep}\nmessage: sleeping\n",
		"broken.yaml": "schema: phpwhy/rule/v1\nid: shop.broken\ntitel: x\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	rep := parse(t, run(t, "dump", fmt.Sprint(w.PID), "--rules", dir, "--no-builtin-rules", "--format", "json"))
	if len(rep.Findings) != 1 || rep.Findings[0].Rule != "shop.sleepy" {
		t.Errorf("findings %+v", rep.Findings)
	}
	if !slices.ContainsFunc(rep.Notes, func(n string) bool { return strings.Contains(n, "broken.yaml:3:1") }) {
		t.Errorf("the broken rule is not named: %v", rep.Notes)
	}
}
