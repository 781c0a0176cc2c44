package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// lockedPool is a php-fpm in which one worker has a lock and three wait for it.
func lockedPool(t *testing.T) (p *testphp.Pool, holder int, waiters []int) {
	t.Helper()
	dir := t.TempDir()
	lock, hold, wait := filepath.Join(dir, "x.lock"), filepath.Join(dir, "hold.php"), filepath.Join(dir, "wait.php")
	write(t, hold, fmt.Sprintf("<?php $f = fopen('%s', 'c'); flock($f, LOCK_EX); echo \"ready\\n\"; flush(); sleep(600);", lock))
	write(t, wait, fmt.Sprintf("<?php $f = fopen('%s', 'c'); echo \"ready\\n\"; flush(); flock($f, LOCK_EX);", lock))
	p = testphp.FPM(t, testphp.StrippedFPM(t), 4)
	holder = p.Hang(t, hold, "")
	for range 3 {
		waiters = append(waiters, p.Hang(t, wait, ""))
	}
	return p, holder, waiters
}

// largest is the group with most workers.
func largest(m *triage.Model) *triage.Group {
	return &m.Groups[slices.IndexFunc(m.Groups, func(g triage.Group) bool {
		return !slices.ContainsFunc(m.Groups, func(o triage.Group) bool { return len(o.Workers) > len(g.Workers) })
	})]
}

func TestCollectFindsWhatWorkersWaitFor(t *testing.T) {
	quiet(t)
	p, holder, waiters := lockedPool(t)
	out := filepath.Join(t.TempDir(), "c.zst")
	pids := pidList(p.Workers)
	for name, args := range map[string][]string{
		"rounds":      {"--every", "500ms", "--for", "1s", "-o", out},
		"breakpoints": {"--break", "mmap"},
	} {
		m := model(t, run(t, append([]string{"collect", "--pid", pids, "--format", "json"}, args...)...))
		if g := largest(m); g.Rule != "lock.flock" || len(g.Workers) != 3 || len(g.Waits) != 1 || g.Waits[0].HolderPID != holder || len(g.Undetermined) != 0 {
			t.Errorf("%s: %+v", name, g)
		}
		if g := m.Groups[len(m.Groups)-1]; g.Rule != "wait.sleep" || m.Workers[g.Workers[0]].PID != holder {
			t.Errorf("%s, the holder: %+v", name, g)
		}
	}
	if g := largest(model(t, run(t, "report", "--format", "json", out))); g.Rule != "lock.flock" || len(g.Workers) != 3 {
		t.Errorf("the report of the file: %+v", g)
	}

	once := run(t, "collect", "--pid", pids, "--format", "json")
	fits(t, "triage", once.out)
	g := largest(model(t, once))
	if g.Rule != "" || g.Title != "in flock()" || len(g.Undetermined) == 0 || g.Undetermined[0].Rule != "lock.flock" || !strings.Contains(g.Undetermined[0].How, "--every") {
		t.Errorf("one round: %+v", g)
	}
	if r := run(t, "collect", "--pid", pids); !strings.Contains(strings.Join(strings.Fields(r.out), " "), "undetermined: lock.flock lacks") {
		t.Errorf("one round: %s", r.out)
	}
	useCapture(t, out, holder, waiters)
}

// useCapture reads a capture of collect with the commands that want one process.
func useCapture(t *testing.T, path string, holder int, waiters []int) {
	t.Helper()
	text := run(t, "match", path)
	if text.code != 0 || strings.Count(text.out, "rule: lock.flock") != 1 || strings.Count(text.out, "rule: wait.sleep") != 1 || !strings.Contains(text.out, "and alike") {
		t.Errorf("match: code %d, %s%s", text.code, text.out, text.err)
	}
	seen := make(map[int]string)
	for line := range strings.Lines(run(t, "match", "--format", "json", path).out) {
		fits(t, "report", line)
		var rep struct {
			Target   struct{ PID int }
			Findings []struct{ Rule string }
		}
		if err := json.Unmarshal([]byte(line), &rep); err != nil || len(rep.Findings) == 0 {
			t.Fatal(err, line)
		}
		seen[rep.Target.PID] = rep.Findings[0].Rule
	}
	if len(seen) != 4 || seen[holder] != "wait.sleep" || seen[waiters[0]] != "lock.flock" {
		t.Errorf("match of each: %v", seen)
	}
	if r := run(t, "match", "--pid", fmt.Sprint(holder), path); r.code != 0 || strings.Contains(r.out, "lock.flock") {
		t.Errorf("match of one: %s%s", r.out, r.err)
	}
	if r := run(t, "rules", "explain", "lock.flock", path, "--pid", fmt.Sprint(waiters[1])); r.code != 0 || !strings.Contains(r.out, "wait.lasting_s") {
		t.Errorf("explain: %s%s", r.out, r.err)
	}
	for _, args := range [][]string{{"rules", "explain", "lock.flock", path}, {"rules", "new", "--from", path, "-o", t.TempDir()}, {"match", "--pid", "1", path}} {
		if r := run(t, args...); r.code != 2 || !strings.Contains(r.err, "choose one with --pid") || !strings.Contains(r.err, fmt.Sprint(waiters[2])) {
			t.Errorf("%q: code %d, %s", args, r.code, r.err)
		}
	}
	dir := t.TempDir()
	if r := run(t, "rules", "new", "--from", path, "--pid", fmt.Sprint(waiters[0]), "--id", "my.lock", "-o", dir); r.code != 0 {
		t.Fatal(r.err)
	}
	if r := run(t, "rules", "test", "--rules", dir); r.code != 0 {
		t.Errorf("the new rule's test: %s%s", r.out, r.err)
	}
}

func TestFilesThatAreNoCapturesAreCalledSo(t *testing.T) {
	dir := t.TempDir()
	head := `{"schema":"phpwhy/capture/v2","host":{"name":"h","boot_id":"b","kernel":"k","arch":"amd64","cpus":1},"started":"2026-11-23T14:19:29Z"}` + "\n"
	process := `{"process":{"id":0,"pid":7,"start_ticks":1,"target":{"pid":7,"cmdline":"php","exe":"/php","php_version":"8.2.1","zts":false,"debug_build":false,"sapi":"cli","libc":"glibc","symbols":"dynsym","layout":"builtin"}}}` + "\n"
	stack := `{"stack":{"id":0,"frames":[{"kind":"php","function":"f","file":"/a.php","line":3}],"end":"root"}}` + "\n"
	look := `{"event":{"t_us":0,"kind":"sample","tid":7,"stack":0,"process":0,"round":1}}` + "\n" +
		`{"look":{"process":0,"round":1,"t_us":0,"observation":{"engine":"none","duration_ms":0,"stops":0,"samples":1,"paused_us_total":1,"paused_us_max":1,"breakpoints":[],"ended":"dump","notes":[]},"facts":{}}}` + "\n"
	files := map[string]string{
		"random": string(bytes.Repeat([]byte{0, 200, '\n', 3}, 40)), "empty": "",
		"newer": `{"schema":"phpwhy/capture/v9","x":1}` + "\n", "damaged": head + process + stack + look + "\x00}{\n" + look,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ command, file, err, out string }{
		{"report", "random", "random is no phpwhy capture", ""},
		{"report", "empty", "empty is empty", ""},
		{"report", "newer", "newer was written by a newer phpwhy", ""},
		{"report", "damaged", "damaged: line 6 is damaged", "1 worker: in PHP code, at /a.php:3"},
		{"match", "random", "random is neither a capture", ""},
		{"match", "empty", "empty is empty", ""},
		{"match", "newer", "newer was written by a newer phpwhy", ""},
		{"match", "damaged", "damaged: line 6 is damaged", "/a.php:3"},
	} {
		r := run(t, c.command, filepath.Join(dir, c.file))
		if r.code != 2 || !strings.Contains(r.err, c.err) || strings.Contains(r.err, "--help") || strings.Count(r.err, "\n") != 1 || !strings.Contains(r.out, c.out) || (c.out == "") != (r.out == "") {
			t.Errorf("%s %s: code %d, %q\n%s", c.command, c.file, r.code, r.err, r.out)
		}
	}
	if r := run(t, "report", filepath.Join(dir, "damaged")); !strings.Contains(strings.Join(strings.Fields(r.out), " "), "what precedes it is reported") {
		t.Errorf("no note: %s", r.out)
	}
}

func TestAPeerOnThisHostIsJoinedToItsOwnLine(t *testing.T) {
	quiet(t)
	dir := t.TempDir()
	server, client := filepath.Join(dir, "server.php"), filepath.Join(dir, "client.php")
	write(t, server, "<?php\n$s = stream_socket_server($argv[1]);\nfile_put_contents($argv[2], stream_socket_get_name($s, false));\necho \"ready\\n\"; flush();\n$c = stream_socket_accept($s, 600);\nfgets($c);\nsleep(600);\n")
	write(t, client, "<?php\n$c = stream_socket_client($argv[1]);\nfwrite($c, \"x\\n\");\nstream_set_timeout($c, 600);\necho \"ready\\n\"; flush();\nfgets($c);\n")
	for scheme, at := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(dir, "s")} {
		name := filepath.Join(dir, scheme)
		s := testphp.StartCommand(t, testphp.Stripped(t), "-n", server, scheme+"://"+at, name)
		address, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c := testphp.StartCommand(t, testphp.Stripped(t), "-n", client, scheme+"://"+string(address))
		want := fmt.Sprintf("waits for %s, which is pid %d, which is in sleep() at %s:7", address, s.PID, server)
		if r := run(t, "collect", "--pid", pidList([]int{c.PID, s.PID})); !strings.Contains(strings.Join(strings.Fields(r.out), " "), want) {
			t.Errorf("no %q in %s%s", want, r.out, r.err)
		}
		// It is looked at, though nobody chose it.
		alone := run(t, "collect", "--pid", fmt.Sprint(c.PID))
		if text := strings.Join(strings.Fields(alone.out), " "); !strings.HasPrefix(text, "1 worker "+want) || !strings.Contains(text, "note: not chosen, but looked at once because others wait for it: "+fmt.Sprint(s.PID)) {
			t.Errorf("alone: no %q in %s%s", want, alone.out, alone.err)
		}
	}
	// What is no PHP is named by its command.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := testphp.StartCommand(t, testphp.Stripped(t), "-n", client, "tcp://"+l.Addr().String())
	want := fmt.Sprintf("1 worker waits for %s, which is pid %d (%s", l.Addr(), os.Getpid(), os.Args[0])
	if r := run(t, "collect", "--pid", fmt.Sprint(c.PID)); !strings.HasPrefix(r.out, want) || !strings.Contains(r.out, "which was not looked at") {
		t.Errorf("no %q in %s%s", want, r.out, r.err)
	}
}

func TestCollectTouchesItsFileOnlyWhenItHasSomethingToWrite(t *testing.T) {
	quiet(t)
	dir := t.TempDir()
	old, none := filepath.Join(dir, "old.zst"), filepath.Join(dir, "none.zst")
	write(t, old, "what was there")
	for _, path := range []string{old, none} {
		if r := run(t, "collect", "--match", "no-such-worker-anywhere", "-o", path); r.code != 3 {
			t.Errorf("code %d, %s", r.code, r.err)
		}
	}
	if b, err := os.ReadFile(old); err != nil || string(b) != "what was there" {
		t.Errorf("%v: %q", err, b)
	}
	if _, err := os.Stat(none); !os.IsNotExist(err) {
		t.Errorf("an empty file is left: %v", err)
	}
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	pid := fmt.Sprint(w.PID)
	if r := run(t, "collect", "--pid", pid, "-o", "/dev/full"); r.code != 2 || !strings.Contains(r.err, "-o /dev/full: ") || !strings.Contains(r.err, "no space left") {
		t.Errorf("a full disk: code %d, %s", r.code, r.err)
	}
	r := run(t, "collect", "--pid", pid, "-o", "-")
	if r.code != 0 || !strings.HasPrefix(r.out, `{"schema":"phpwhy/capture/v2"`) || !strings.HasSuffix(r.out, `"ended":"done"}}`+"\n") {
		t.Fatalf("code %d, %s%s", r.code, r.out, r.err)
	}
	write(t, old, r.out)
	if m := model(t, run(t, "report", "--format", "json", old)); len(m.Workers) != 1 || m.Workers[0].PID != w.PID {
		t.Errorf("%+v", m.Workers)
	}
}
