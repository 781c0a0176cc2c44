package cli_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/perf"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

func needUprobes(t testing.TB) {
	t.Helper()
	if err := perf.Supported(); err != nil {
		testphp.Missing(t, err.Error())
	}
}

// probing waits until a breakpoint is in the C library's code of a process.
func probing(t testing.TB, pid int) {
	t.Helper()
	for range 1000 {
		if textDiffers(t, pid) != "" {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatal("no breakpoint appears in the worker")
}

// cleaned holds that the breakpoints go, which the kernel does a little later
// than it ends the process that set them.
func cleaned(t testing.TB, pid int) {
	t.Helper()
	for range 500 {
		if textDiffers(t, pid) == "" {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	unharmed(t, pid)
}

func uprobe(pid int, more ...string) []string {
	return append([]string{"attach", fmt.Sprint(pid), "--engine", "uprobe"}, more...)
}

var without = []string{"--for", "50s", "--stops", "1000000000", "--format", "json"}

func TestUprobesFindTheCauseAndStopNothing(t *testing.T) {
	needUprobes(t)
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	time.Sleep(grown)
	rep := parse(t, run(t, uprobe(w.PID, "--format", "json")...))
	if len(rep.Findings) == 0 || rep.Findings[0].Rule != "mem.string-concat" || rep.Findings[0].PHP.Line != 12 {
		t.Errorf("findings %+v", rep.Findings)
	}
	o := rep.Observation
	if o.Engine != "uprobe" || o.Stops != 200 || !slices.ContainsFunc(rep.Notes, func(n string) bool { return strings.Contains(n, "never stopped") }) {
		t.Errorf("%+v; %v", o, rep.Notes)
	}
	cleaned(t, w.PID)
}

// traced reports whether the worker was seen traced or stopped while f runs.
func TestUprobesTraceNothing(t *testing.T) {
	needUprobes(t)
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	c := exec.Command(phpwhy(t), uprobe(w.PID, "--for", "1s", "--stops", "1000000000")...)
	b := begin(t, c)
	probing(t, w.PID)
	for range 200 {
		if tr, s := status(w.PID, "TracerPid"), status(w.PID, "State"); tr != "0" || strings.HasPrefix(s, "t") || strings.HasPrefix(s, "T") {
			t.Fatalf("the worker is in state %s, traced by %s", s, tr)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if r := finish(t, c, b); r.code != 0 {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	cleaned(t, w.PID)
}

// TestAnotherTracerIsNoObstacle holds the worker by strace meanwhile.
func TestAnotherTracerIsNoObstacle(t *testing.T) {
	needUprobes(t)
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	s := exec.Command(testphp.Require(t, "strace"), "-qq", "-e", "trace=none", "-p", fmt.Sprint(w.PID))
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Process.Signal(syscall.SIGINT); _ = s.Wait() }()
	observing(t, w.PID)
	time.Sleep(grown)
	rep := parse(t, run(t, uprobe(w.PID, "--format", "json")...))
	if len(rep.Findings) == 0 || rep.Findings[0].Rule != "mem.string-concat" {
		t.Errorf("findings %+v", rep.Findings)
	}
}

func TestAWorkerSurvivesTheKillOfUprobes(t *testing.T) {
	needUprobes(t)
	const rounds = 20
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	for i := range rounds {
		c := exec.Command(phpwhy(t), uprobe(w.PID, without...)...)
		_ = begin(t, c)
		probing(t, w.PID)
		time.Sleep(time.Duration(rand.IntN(100_000)) * time.Microsecond)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		cleaned(t, w.PID)
		if t.Failed() {
			t.Fatalf("round %d", i)
		}
	}
	t.Logf("alive and clean %d of %d", rounds, rounds)
}

func TestSignalsEndUprobesWithAReport(t *testing.T) {
	needUprobes(t)
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		c := exec.Command(phpwhy(t), uprobe(w.PID, without...)...)
		b := begin(t, c)
		probing(t, w.PID)
		time.Sleep(300 * time.Millisecond)
		if err := c.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		r := finish(t, c, b)
		rep := parse(t, r)
		if r.code != 0 || rep.Observation.Stops == 0 || len(rep.Findings) == 0 {
			t.Errorf("%v: exit %d, %d stops, findings %v: %s", sig, r.code, rep.Observation.Stops, rep.Findings, r.err)
		}
		cleaned(t, w.PID)
	}
}

func TestTheTargetsEndUnderUprobes(t *testing.T) {
	needUprobes(t)
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "mem.string-concat.php"))
	time.Sleep(grown)
	c := exec.Command(phpwhy(t), uprobe(w.PID, without...)...)
	b := begin(t, c)
	probing(t, w.PID)
	time.Sleep(1500 * time.Millisecond) // until all are set, on a busy machine
	_ = w.Cmd.Process.Kill()
	r := finish(t, c, b)
	rep := parse(t, r)
	if r.code != 3 || rep.Observation.Stops == 0 || len(rep.Findings) == 0 || !strings.Contains(r.err, "ended") {
		t.Errorf("exit %d, %d stops, findings %v: %s", r.code, rep.Observation.Stops, rep.Findings, r.err)
	}
}

// started starts a script that waits for the returned function to be called.
func started(t testing.TB, dir, name string) (*testphp.Worker, func()) {
	t.Helper()
	flag := filepath.Join(dir, name+".flag")
	w := testphp.StartCommand(t, testphp.Stripped(t), filepath.Join(dir, name+".php"), flag)
	return w, func() {
		if err := os.WriteFile(flag, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
}

func TestExecAndForkUnderUprobes(t *testing.T) {
	needUprobes(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"fork.php": "<?php echo \"ready\\n\"; flush(); while (!file_exists($argv[1])) { usleep(2000); clearstatcache(); } $p = pcntl_fork(); for (;;) { $s = str_repeat('x', 3 << 20); $s .= 'y'; unset($s); }",
		"exec.php": "<?php echo \"ready\\n\"; flush(); while (!file_exists($argv[1])) { usleep(2000); clearstatcache(); } pcntl_exec('/bin/sleep', ['20']);",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("fork", func(t *testing.T) {
		w, begun := started(t, dir, "fork")
		c := exec.Command(phpwhy(t), uprobe(w.PID, "--for", "3s", "--format", "json")...)
		b := begin(t, c)
		probing(t, w.PID)
		begun()
		r := finish(t, c, b)
		rep := parse(t, r)
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", w.PID, w.PID))
		child := 0
		if _, err := fmt.Sscan(string(children), &child); err != nil {
			t.Fatalf("children %q: %v", children, err)
		}
		defer func() { _ = syscall.Kill(child, syscall.SIGKILL) }()
		if r.code != 0 || rep.Observation.Stops == 0 {
			t.Errorf("exit %d, %d stops: %s", r.code, rep.Observation.Stops, r.err)
		}
		cleaned(t, w.PID)
		cleaned(t, child)
	})
	t.Run("exec", func(t *testing.T) {
		w, begun := started(t, dir, "exec")
		from := time.Now()
		c := exec.Command(phpwhy(t), uprobe(w.PID, without...)...)
		b := begin(t, c)
		probing(t, w.PID)
		begun()
		r := finish(t, c, b)
		if parse(t, r); r.code != 0 || time.Since(from) > 20*time.Second {
			t.Errorf("exit %d after %v: %s", r.code, time.Since(from), r.err)
		}
		if diff := textDiffers(t, w.PID); diff != "" || !testphp.Alive(w.PID) {
			t.Errorf("alive: %v; %s", testphp.Alive(w.PID), diff)
		}
	})
}

func TestUprobesOfAnotherUserAreForbidden(t *testing.T) {
	if os.Geteuid() != 0 {
		testphp.Missing(t, "root, to become another user")
	}
	// A process of one's own can be looked at, but not probed.
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	script := filepath.Join(t.TempDir(), "sleep.php")
	w := exec.Command(testphp.Stripped(t), "-n", "-r", "sleep(60);")
	w.SysProcAttr = nobody
	if err := w.Start(); err != nil {
		t.Fatal(script, err)
	}
	defer func() { _ = w.Process.Kill(); _ = w.Wait() }()
	time.Sleep(300 * time.Millisecond)
	c := exec.Command(phpwhy(t), uprobe(w.Process.Pid)...)
	c.SysProcAttr = nobody
	oneLine(t, finish(t, c, begin(t, c)), 4, "CAP_SYS_ADMIN")
}
