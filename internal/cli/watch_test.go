package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// found is the part of phpwhy/finding/v1 that these tests look at.
type found struct {
	Schema  string
	Time    time.Time
	Trigger struct {
		Kind         string
		CPUPct       float64 `json:"cpu_pct"`
		ForMS        int64   `json:"for_ms"`
		RequestAgeMS int64   `json:"request_age_ms"`
	}
	Worker struct {
		PID        int
		StartTicks uint64 `json:"start_ticks"`
		Pool       string
		SAPI       string
		Request    *struct{ URI, Script string }
	}
	Verdict  string
	Findings []struct {
		Rule string
		PHP  struct{ File string }
	}
	Stack       []string
	Observation struct {
		Engine, Ended string
		DurationMS    int64 `json:"duration_ms"`
	}
	Capture string
}

// watching is a running phpwhy watch.
type watching struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan error
	base string // of its listener

	mu       sync.Mutex
	out, err bytes.Buffer
}

type locked struct {
	w *watching
	b *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.b.Write(p)
}

// watch starts phpwhy watch with a listener, and waits until it watches.
func watch(t *testing.T, args ...string) *watching {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	w := &watching{t: t, base: "http://" + addr, done: make(chan error, 1)}
	w.cmd = exec.Command(phpwhy(t), append([]string{"watch", "--every", "200ms", "--listen", addr}, args...)...)
	w.cmd.Stdout, w.cmd.Stderr = locked{w, &w.out}, locked{w, &w.err}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { w.done <- w.cmd.Wait() }()
	t.Cleanup(func() { _ = w.cmd.Process.Kill() })
	w.until("it is ready", func() bool {
		r, err := http.Get(w.base + "/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return w
}

func (w *watching) text() (out, errs string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.String(), w.err.String()
}

func (w *watching) until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(limit); !is(); time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-w.done:
			_, errs := w.text()
			w.t.Fatalf("phpwhy watch has ended before %s: %v; %s", what, err, errs)
		default:
		}
		if time.Now().After(end) {
			out, errs := w.text()
			w.t.Fatalf("waited in vain until %s; out %q, err %q, metrics %s", what, out, errs, w.metrics())
		}
	}
}

func (w *watching) metrics() string {
	r, err := http.Get(w.base + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

// metric waits until a metric has a value.
func (w *watching) metric(line string) {
	w.t.Helper()
	w.until(line, func() bool { return strings.Contains(w.metrics(), "phpwhy_watch_"+line+"\n") })
}

// findings waits for n findings and checks each against the schema.
func (w *watching) findings(n int) []found {
	w.t.Helper()
	w.until(fmt.Sprintf("there are %d findings", n), func() bool {
		out, _ := w.text()
		return strings.Count(out, "\n") >= n
	})
	out, _ := w.text()
	schema := schemaOf(w.t, "finding")
	var all []found
	for line := range strings.Lines(out) {
		var doc any
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			w.t.Fatalf("%v in %s", err, line)
		}
		if err := schema.Validate(doc); err != nil {
			w.t.Errorf("%v in %s", err, line)
		}
		var f found
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, f)
	}
	return all
}

// end sends a signal and waits for the end, which must come soon.
func (w *watching) end(sig syscall.Signal) {
	w.t.Helper()
	begin := time.Now()
	if err := w.cmd.Process.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
	select {
	case err := <-w.done:
		_, errs := w.text()
		if err != nil {
			w.t.Errorf("ended with %v: %s", err, errs)
		}
		// Two seconds are promised; a busy machine gets some more.
		if took := time.Since(begin); took > 4*time.Second {
			w.t.Errorf("took %v to end", took)
		}
	case <-time.After(limit):
		w.t.Fatalf("did not end on %v", sig)
	}
}

// untouched checks that nobody stops or traces a process.
func untouched(t *testing.T, pid int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "TracerPid:"); ok && strings.TrimSpace(v) != "0" {
			t.Errorf("process %d is traced by %s", pid, strings.TrimSpace(v))
		}
		if v, ok := strings.CutPrefix(line, "State:"); ok && strings.ContainsAny(v[:2], "tT") {
			t.Errorf("process %d is stopped: %s", pid, v)
		}
	}
}

func TestWatchObservesAWorkerThatBurnsCPU(t *testing.T) {
	worker := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	dir, mark := filepath.Join(t.TempDir(), "captures"), filepath.Join(t.TempDir(), "mark")
	w := watch(t, "--pid", fmt.Sprint(worker.PID), "--cpu", "50%", "--during", "2s", "--observe", "2s", "--out", dir,
		"--exec", `sh -c 'echo "$PHPWHY_RULE" >"$0"; cat >>"$0"' `+mark)
	f := w.findings(1)[0]
	if f.Worker.PID != worker.PID || f.Trigger.Kind != "cpu" || f.Trigger.CPUPct < 50 || f.Trigger.ForMS < 2000 || f.Worker.SAPI != "cli" || f.Worker.Request != nil {
		t.Errorf("got %+v", f)
	}
	if f.Verdict != "cause" || len(f.Findings) == 0 || f.Findings[0].Rule != "mem.string-concat" || !strings.HasSuffix(f.Findings[0].PHP.File, "mem.string-concat.php") {
		t.Errorf("verdict %s, findings %+v, want mem.string-concat", f.Verdict, f.Findings)
	}
	if filepath.Dir(f.Capture) != dir {
		t.Fatalf("capture is %q, want one in %s", f.Capture, dir)
	}
	if r := run(t, "match", f.Capture); r.code != 0 || !strings.Contains(r.out, "mem.string-concat") {
		t.Errorf("match of the capture: %d %s %s", r.code, r.out, r.err)
	}
	w.metric(`commands_total{result="ok"} 1`)
	w.metric(`findings_total{rule="mem.string-concat"} 1`)
	w.metric(`observations_total{outcome="seen"} 1`)
	out, _ := w.text()
	if b, err := os.ReadFile(mark); err != nil || string(b) != "mem.string-concat\n"+out {
		t.Errorf("the command got %q (%v), want the finding", b, err)
	}
	untouched(t, worker.PID)
	w.end(syscall.SIGINT)
	if out, _ := w.text(); strings.Count(out, "\n") != 1 {
		t.Errorf("the cooldown did not keep it from observing again: %s", out)
	}
}

// slowPage asks for no time, so that PHP notes none.
const slowPage = `<?php
echo "\nready\n"; while (ob_get_level()) ob_end_flush(); flush();
function wait() { while (true) usleep(100000); }
wait();
`

func TestWatchObservesAnOldRequestAndNoIdleWorker(t *testing.T) {
	script := filepath.Join(t.TempDir(), "slow.php")
	if err := os.WriteFile(script, []byte(slowPage), 0o644); err != nil {
		t.Fatal(err)
	}
	pool := testphp.FPM(t, testphp.StrippedFPM(t), 3)
	pid := pool.Hang(t, script, "month=7")
	w := watch(t, "--match", "pool www", "--cpu", "0", "--age", "3s", "--observe", "1s", "--cooldown", "0")
	all := w.findings(2) // --cooldown 0: the same again
	for _, f := range all {
		if f.Worker.PID != pid || f.Trigger.Kind != "age" || f.Trigger.RequestAgeMS < 3000 || f.Worker.Pool != "www" || f.Worker.SAPI != "fpm-fcgi" {
			t.Errorf("got %+v, want worker %d", f, pid)
		}
		if f.Worker.Request == nil || f.Worker.Request.URI != "/slow.php?month=7" || !strings.Contains(strings.Join(f.Stack, "\n"), "php: wait() at "+script+":3") {
			t.Errorf("request %+v, stack %q", f.Worker.Request, f.Stack)
		}
	}
	for _, p := range pool.Workers {
		untouched(t, p)
	}
	w.end(syscall.SIGTERM)
}

const lockPage = `<?php
$f = fopen(__FILE__, 'r');
echo "\nready\n"; while (ob_get_level()) ob_end_flush(); flush();
flock($f, LOCK_EX); sleep(600);
`

// TestWatchFindsAllThatWaitForOneLock: to look at one of them wakes the others.
func TestWatchFindsAllThatWaitForOneLock(t *testing.T) {
	const waiters = 4
	script := filepath.Join(t.TempDir(), "lock.php")
	if err := os.WriteFile(script, []byte(lockPage), 0o644); err != nil {
		t.Fatal(err)
	}
	pool := testphp.FPM(t, testphp.StrippedFPM(t), waiters+1)
	for range waiters { // the first one sleeps with the lock
		pool.Hang(t, script, "")
	}
	hung := time.Now()
	w := watch(t, "--match", "pool www", "--cpu", "0", "--age", "4s", "--observe", "1s", "--cooldown", "1h")
	seen := make(map[int]bool)
	for _, f := range w.findings(waiters) {
		// When one was first looked at, or last woken, is no part of its age.
		if seen[f.Worker.PID] || f.Trigger.Kind != "age" || f.Trigger.RequestAgeMS < 4000 || f.Trigger.RequestAgeMS < f.Time.Sub(hung).Milliseconds() {
			t.Errorf("got %+v, after %v", f, seen)
		}
		seen[f.Worker.PID] = true
	}
	w.end(syscall.SIGTERM)
}

func TestWatchEndsInTheMiddleOfAnObservation(t *testing.T) {
	for _, engine := range []string{"hwbp", "int3"} {
		t.Run(engine, func(t *testing.T) {
			worker := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.array-append.php"))
			w := watch(t, "--pid", fmt.Sprint(worker.PID), "--cpu", "50%", "--during", "1s", "--observe", "5m", "--engine", engine)
			w.metric("observing 1")
			time.Sleep(300 * time.Millisecond)
			w.end(syscall.SIGTERM)
			untouched(t, worker.PID)
			if !testphp.Alive(worker.PID) {
				t.Error("the worker has ended")
			}
		})
	}
}

func TestWatchKeepsToItsBudget(t *testing.T) {
	var pids []string
	for range 2 {
		pids = append(pids, "--pid", fmt.Sprint(testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php")).PID))
	}
	w := watch(t, append(pids, "--cpu", "20%", "--during", "1s", "--observe", "500ms", "--max-per-hour", "1")...)
	w.findings(1)
	w.metric(`delayed_total{budget="hourly_cap"} 1`)
	w.metric("waiting 1")
	w.end(syscall.SIGTERM)
	if out, _ := w.text(); strings.Count(out, "\n") != 1 {
		t.Errorf("more than one observation: %s", out)
	}
}

func TestWatchGoesOnWhenObservationsFail(t *testing.T) {
	// A process that looks like PHP's to those who choose by name, and is none.
	dir := t.TempDir()
	fake := filepath.Join(dir, "php-fake")
	sh, err := os.ReadFile(testphp.Require(t, "dash"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fake, sh, 0o755); err != nil {
		t.Fatal(err)
	}
	loop := exec.Command(fake, "-c", "while :; do :; done")
	if err := loop.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = loop.Process.Kill(); _ = loop.Wait() }()
	worker := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	w := watch(t, "--pid", fmt.Sprint(loop.Process.Pid), "--pid", fmt.Sprint(worker.PID), "--cpu", "20%", "--during", "1s", "--observe", "500ms")
	if f := w.findings(1)[0]; f.Worker.PID != worker.PID {
		t.Errorf("finding of %d, want %d", f.Worker.PID, worker.PID)
	}
	w.metric(`failures_total{reason="not_php"} 1`)
	w.metric(`observations_total{outcome="failed"} 1`)
	if _, errs := w.text(); strings.Count(errs, "\n") != 1 || !strings.Contains(errs, fmt.Sprint(loop.Process.Pid)) {
		t.Errorf("standard error is %q, want one line about %d", errs, loop.Process.Pid)
	}
	worker.Kill()
	w.metric("workers 1")
	w.end(syscall.SIGTERM)
}

func TestWatchIsOverWithTheProcessesThatWereNamed(t *testing.T) {
	worker := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	w := watch(t, "--pid", fmt.Sprint(worker.PID))
	worker.Kill()
	select {
	case err := <-w.done:
		if _, errs := w.text(); err != nil || errs != "phpwhy: the processes to watch have ended\n" {
			t.Errorf("%v, %q", err, errs)
		}
	case <-time.After(limit):
		t.Fatal("it goes on")
	}
	if r := run(t, "watch", "--pid", fmt.Sprint(worker.PID)); r.code != 3 {
		t.Errorf("exit code %d, want 3: %s", r.code, r.err)
	}
}

func TestWatchReadsRulesAgainOnSIGHUP(t *testing.T) {
	rules := t.TempDir()
	worker := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	w := watch(t, "--pid", fmt.Sprint(worker.PID), "--cpu", "20%", "--during", "1s", "--observe", "500ms", "--cooldown", "1s",
		"--no-builtin-rules", "--rules", rules)
	if f := w.findings(1)[0]; f.Verdict != "unexplained" {
		t.Errorf("verdict %s without rules", f.Verdict)
	}
	rule := `schema: phpwhy/rule/v1
id: my.loop
revision: 1
title: a loop of ours
severity: low
maturity: stable
kind: cause
match:
  all:
    - in: any
      share: 0.1
      php: |
        user as=site
score: {base: 0.9, report_at: 0.5}
message: "{{site}} loops"
`
	if err := os.WriteFile(filepath.Join(rules, "my.loop.yaml"), []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	w.until("my.loop is found", func() bool { out, _ := w.text(); return strings.Contains(out, `"rule":"my.loop"`) })
	w.end(syscall.SIGTERM)
}

func TestWatchRefusesNonsense(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"4242"}, {"--cpu", "0", "--age", "0"}, {"--cpu", "90"}, {"--cpu", "-5%"}, {"--cpu", "NaN%"}, {"--during", "0s"}, {"--every", "1ms"},
		{"--during", "1s", "--every", "2s"}, {"--age", "-1s"}, {"--cooldown", "-1s"}, {"--observe", "0s"}, {"--keep", "0"}, {"--keep-size", "10X"},
		{"--keep-size", "99999999999T"}, {"--exec", "'"}, {"--exec", "/nonexistent/program"}, {"--exec", " "}, {"--out", file},
		{"--listen", "0.0.0.0:0"}, {"--listen", "9127"}, {"--listen-anywhere"}, {"--engine", "magic"}, {"--match", "("}, {"--rules", file},
		{"--pid="}, {"--match="}, {"--pool="}, {"--cgroup="}, {"--max-pause", "0%"}, {"--exec-timeout", "0s"}, {"--max-per-hour", "-1"},
	} {
		r := run(t, append([]string{"watch"}, args...)...)
		if r.code != 2 || r.out != "" || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%q: exit code %d, %q, %q", args, r.code, r.out, r.err)
		}
	}
}

// phpwhy watch | head -1
func TestAWatchEndsWhenItsReaderLeaves(t *testing.T) {
	quiet(t)
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	c := exec.Command(phpwhy(t), "watch", "--every", "100ms", "--during", "200ms", "--observe", "200ms", "--cooldown", "300ms",
		"--max-per-hour", "0", "--pause-budget", "100%", "--for", "60s", "--pid", fmt.Sprint(w.PID))
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	c.Stdout, c.Stderr = out, &errs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	_, err = bufio.NewReader(r).ReadString('\n')
	_ = r.Close()
	began := time.Now()
	if werr := c.Wait(); err != nil || werr != nil || time.Since(began) > 45*time.Second || !strings.Contains(errs.String(), "nobody reads the findings") {
		t.Errorf("%v, ended %v after %v: %s", err, werr, time.Since(began), errs.String())
	}
	if st := testphp.State(t, w.PID); st != "R" {
		t.Errorf("the worker is left in state %s", st)
	}
}
