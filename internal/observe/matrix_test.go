//go:build matrix

package observe

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// These tests look at PHP inside other programs. scripts/matrix installs what
// they need under .cache/matrix.

const waiting = `<?php
function waits($seconds)
{
    sleep(
        $seconds
    );
}
waits(%d);
`

func fixture(t *testing.T, name string) string {
	t.Helper()
	p := filepath.Join(testphp.Root(t), ".cache", "matrix", name)
	if _, err := os.Stat(p); err != nil {
		testphp.Missing(t, p+"; run scripts/matrix")
	}
	return p
}

// script writes the waiting script where every user can read it.
func script(t *testing.T, name string, seconds int) (dir, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "phpwhy-matrix-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // Apache's user reads it
		t.Fatal(err)
	}
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, fmt.Appendf(nil, waiting, seconds), 0o644); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	return dir, path
}

// waits checks that exactly the given threads of a dump wait in the script.
func waits(t *testing.T, c *capture.Capture, path string) (threads int) {
	t.Helper()
	for i := range c.Stacks {
		s := &c.Stacks[i]
		got := calls(s.Frames)
		if len(got) == 0 {
			continue
		}
		threads++
		if s.End != stack.Root || s.Error != "" {
			t.Errorf("the stack ends %s: %s\n%s", s.End, s.Error, outline(s.Frames))
		}
		if len(got) < 2 || got[0].Function != "sleep" || got[0].Line != 4 || got[0].File != path ||
			got[1].Function != "waits" || got[1].Line != 8 {
			t.Errorf("got %+v", got)
		}
	}
	return threads
}

// await looks until the process waits in the script.
func await(t *testing.T, pid int, path string) *capture.Capture {
	t.Helper()
	o := New()
	var last error
	for range 100 {
		c, err := o.Dump(context.Background(), pid)
		if err == nil {
			for i := range c.Stacks {
				if got := calls(c.Stacks[i].Frames); len(got) > 0 && got[0].Function == "sleep" {
					return c
				}
			}
		}
		last = err
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("process %d does not wait in %s: %v", pid, path, last)
	return nil
}

func start(t *testing.T, c *exec.Cmd) int {
	t.Helper()
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	return c.Process.Pid
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestPHPOutsideItsOwnProgram(t *testing.T) {
	for _, tt := range []struct {
		name, sapi string
		start      func(t *testing.T, path string) int
	}{
		{"php-cgi", "cgi-fcgi", func(t *testing.T, path string) int {
			return start(t, exec.Command(testphp.Require(t, "php-cgi8.2"), "-n", path))
		}},
		{"a program with libphp linked into it", "embed", func(t *testing.T, path string) int {
			return start(t, exec.Command(fixture(t, "embed"), path))
		}},
		{"PHP with musl", "cli", func(t *testing.T, path string) int {
			return start(t, exec.Command(filepath.Join(testphp.Root(t), ".cache/php/8.2-nts-musl/bin/php"), "-n", path))
		}},
		{"PHP with musl, stripped of debug information", "cli", func(t *testing.T, path string) int {
			php := filepath.Join(t.TempDir(), "php")
			src := filepath.Join(testphp.Root(t), ".cache/php/8.2-nts-musl/bin/php")
			if out, err := exec.Command("strip", "-g", "-o", php, src).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return start(t, exec.Command(php, "-n", path))
		}},
		{"mod_php", "apache2handler", apache},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, path := script(t, "wait.php", 600)
			c := await(t, tt.start(t, path), path)
			if n := waits(t, c, path); n != 1 {
				t.Errorf("%d threads run PHP", n)
			}
			if c.Target.SAPI != tt.sapi {
				t.Errorf("the SAPI is %q, want %q", c.Target.SAPI, tt.sapi)
			}
		})
	}
}

// TestTheRequestOfModPHP has a .htaccess-like front controller, and a script that
// asks for no time.
func TestTheRequestOfModPHP(t *testing.T) {
	_, path := script(t, "index.php", 600)
	begin := time.Now()
	pid := serveApache(t, path, "/real/route?x=1", `LoadModule rewrite_module /usr/lib/apache2/modules/mod_rewrite.so
<Directory />
RewriteEngine on
RewriteRule !index\.php$ /index.php [L]
</Directory>
`)
	await(t, pid, path)
	p := NewPeeker()
	first, err := p.Peek(pid, startOf(t, pid))
	if err != nil || first.Idle || !first.Web || first.Start.Before(begin) || first.Start.After(time.Now()) {
		t.Errorf("a glance shows %+v (%v)", first, err)
	}
	time.Sleep(1200 * time.Millisecond)
	if again, err := p.Peek(pid, startOf(t, pid)); err != nil || again.Request == "" || again.Request != first.Request {
		t.Errorf("a glance shows %+v, then %+v (%v)", first, again, err)
	}
	q, text, _ := requestOf(t, pid)
	if q.Method != "GET" || q.URI != "/real/route?x=1" || *q.AgeMS < 1200 || *q.AgeMS > time.Since(begin).Milliseconds() {
		t.Errorf("got %s", text)
	}
}

// apache serves the script with one worker process and returns its pid.
func apache(t *testing.T, path string) int {
	t.Helper()
	return serveApache(t, path, "/"+filepath.Base(path), "")
}

// serveApache is apache for a URI, with more lines of configuration.
func serveApache(t *testing.T, path, uri, lines string) int {
	t.Helper()
	dir, port := filepath.Dir(path), freePort(t)
	conf := filepath.Join(dir, "httpd.conf")
	writeFile(t, conf, fmt.Sprintf(`ServerRoot %[1]s
Listen 127.0.0.1:%[2]d
ServerName localhost
PidFile %[1]s/pid
ErrorLog %[1]s/error.log
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
LoadModule php_module %[3]s
StartServers 1
MinSpareServers 1
MaxSpareServers 1
MaxRequestWorkers 1
User www-data
Group www-data
TypesConfig /etc/mime.types
DocumentRoot %[1]s
AddHandler application/x-httpd-php .php
`, dir, port, fixture(t, "libphp8.2.so"))+lines)
	main := start(t, exec.Command(testphp.Require(t, "apache2"), "-f", conf, "-X"))
	for range 100 {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			t.Cleanup(func() { _ = c.Close() })
			_, _ = fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", uri)
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return main // -X: one process
}

// TestThreadsInsideNode has PHP run requests on Node's worker threads.
func TestThreadsInsideNode(t *testing.T) {
	dir, _ := script(t, "a.php", 600)
	writeFile(t, filepath.Join(dir, "b.php"), fmt.Sprintf(waiting, 601))
	module := fixture(t, "node_modules/@platformatic/php-node/index.js")
	run := filepath.Join(dir, "run.mjs")
	writeFile(t, run, fmt.Sprintf(`import { Php, Request } from '%s'
const php = new Php({ docroot: '%s' })
for (const f of ['a.php', 'b.php']) php.handleRequest(new Request({ url: 'http://example.com/' + f })).catch(() => {})
setTimeout(() => console.log('ready'), 500)
setTimeout(() => {}, 600000)
`, module, dir))
	cmd := exec.Command(testphp.Require(t, "node"), run)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	pid := start(t, cmd)
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	c, err := New().Dump(context.Background(), pid)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Target.ZTS || !strings.HasPrefix(c.Target.PHPVersion, "8.4.") {
		t.Errorf("target %+v", c.Target)
	}
	php, rust := 0, 0
	for i := range c.Stacks {
		s := &c.Stacks[i]
		got := calls(s.Frames)
		if len(got) == 0 {
			continue
		}
		php++
		if s.End != stack.Root || s.Error != "" || len(got) != 2 || got[0].Function != "sleep" || got[0].Line != 4 ||
			got[1].Function != "waits" || got[1].Line != 8 {
			t.Errorf("%s %s %+v\n%s", s.End, s.Error, got, outline(s.Frames))
		}
		for _, f := range s.Frames {
			if strings.Contains(f.Function, "::compute") && strings.HasPrefix(f.Raw, "_") {
				rust++
			}
		}
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	if php != 2 || rust < 2 || len(c.Events) != len(threads) {
		t.Errorf("%d stacks with PHP frames, %d demangled Rust names, %d of %d threads", php, rust, len(c.Events), len(threads))
	}
	uris := make(map[string]bool)
	for _, q := range c.Target.Requests {
		uris[q.URI] = true
	}
	if !uris["/a.php"] || !uris["/b.php"] || len(uris) != 2 {
		t.Errorf("requests %+v", c.Target.Requests)
	}
	t.Logf("%d threads, 2 with PHP", len(threads))
}

// TestTheCurrentLineBesidePhpspy stops a running loop at many moments and
// compares the line that phpwhy and, when it is on PATH, phpspy print with the
// line of the opline in the interpreter's register, read by gdb.
func TestTheCurrentLineBesidePhpspy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lines.php")
	writeFile(t, path, `<?php
function work()
{
    $s = 0;
    for ($i = 0; ; $i++) {
        $s += $i * 3;
        $s ^= $i;
        $t = "x" . $s;
        $u = $t[1] .
            $t;
        $v = [$t, $u, $s];
    }
}
echo "ready\n";
work();
`)
	w := testphp.Start(t, testphp.DWARF(t), path)
	phpspy, _ := exec.LookPath("phpspy")
	spyLine := regexp.MustCompile(`(?m)^\d+ work \S+:(\d+)`)
	o := New()
	rounds, known, ours, theirs, spied := 30, 0, 0, 0, 0
	for range rounds {
		time.Sleep(7 * time.Millisecond)
		stop(t, w.PID)
		out, err := exec.Command(testphp.Require(t, "gdb"), "-nx", "-batch", "-iex", "set debuginfod enabled off", "-p", strconv.Itoa(w.PID),
			"-ex", "frame function execute_ex", "-ex", `printf "LINE %d\n", ((zend_op *) $r15)->lineno`).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, after, ok := strings.Cut(string(out), "LINE ")
		want, err := strconv.Atoi(strings.Split(after+"\n", "\n")[0])
		if ok && err == nil && want > 2 && want < 13 {
			known++
			c, err := o.Dump(context.Background(), w.PID)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range c.Stacks[0].Frames {
				if f.Kind == stack.PHP && !f.Internal {
					if f.Line == want {
						ours++
					} else {
						t.Errorf("line %d, gdb says %d", f.Line, want)
					}
					break
				}
			}
			if phpspy != "" {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				out, _ := exec.CommandContext(ctx, phpspy, "-p", strconv.Itoa(w.PID), "-l", "3", "-s", "1000000", "-V", "82").Output()
				cancel()
				if m := spyLine.FindSubmatch(out); m != nil {
					spied++
					if string(m[1]) == strconv.Itoa(want) {
						theirs++
					}
				}
			}
		}
		if err := syscall.Kill(w.PID, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	if known < rounds/2 {
		t.Errorf("gdb found the line in %d of %d rounds", known, rounds)
	}
	t.Logf("right line: phpwhy %d of %d, phpspy %d of %d", ours, known, theirs, spied)
	table := fmt.Sprintf("| tool | samples | right current line |\n| --- | --- | --- |\n| phpwhy | %d | %d |\n", known, ours)
	if spied > 0 {
		table += fmt.Sprintf("| phpspy | %d | %d |\n", spied, theirs)
	}
	figures(t, table)
}
