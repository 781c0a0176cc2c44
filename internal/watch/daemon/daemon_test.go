package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/watch"
)

// stand is a daemon over real processes that compute, with an observation that
// a test makes up.
type stand struct {
	t       *testing.T
	d       *Daemon
	opt     Options
	workers []Worker
	out     strings.Builder

	mu  sync.Mutex
	log []string
}

func newStand(t *testing.T, n int) *stand {
	t.Helper()
	s := &stand{t: t}
	for range n {
		c := exec.Command("/bin/sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		times, err := proc.ReadTimes(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		s.workers = append(s.workers, Worker{ID: watch.ID{PID: c.Process.Pid, Start: times.Start}, Pool: "www"})
	}
	s.opt = Options{
		Policy: watch.Policy{CPU: 0.2, During: 200 * time.Millisecond, Cooldown: time.Hour}, Every: 50 * time.Millisecond, Observe: time.Second,
		Find:  func(context.Context) ([]Worker, error) { return slices.Clone(s.workers), nil },
		Judge: func(*capture.Capture) (report.Verdict, error) { return report.Verdict{}, nil },
		Out:   &s.out, Env: func(string) string { return "" },
		Log: func(line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.log = append(s.log, line)
		},
	}
	return s
}

// runUntil runs the daemon until a condition on its counts holds.
func (s *stand) runUntil(what string, is func(*counts) bool) {
	s.t.Helper()
	s.d = New(s.opt)
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	met := false
	go func() {
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			s.d.counts.change(func(c *counts) { met = is(c) })
			if met {
				cancel()
			}
		}
	}()
	if err := s.d.Run(ctx); err != nil {
		s.t.Fatal(err)
	}
	s.d.counts.change(func(c *counts) {
		if !met {
			s.t.Fatalf("waited in vain until %s: %+v; log %q", what, c, s.log)
		}
	})
}

func TestFailuresNeverEndTheWatch(t *testing.T) {
	s := newStand(t, 3)
	full := errors.New("no space left on device")
	s.opt.Out = writerFunc(func([]byte) (int, error) { return 0, full })
	s.opt.Store = &Store{Dir: filepath.Join(t.TempDir(), "missing"), MaxFiles: 1, MaxBytes: 1}
	s.opt.Judge = func(*capture.Capture) (report.Verdict, error) {
		return report.Verdict{}, errors.New("a rule is broken")
	}
	finds := 0
	s.opt.Find = func(context.Context) ([]Worker, error) {
		if finds++; finds%3 == 0 {
			return nil, errors.New("too many open files")
		}
		return slices.Clone(s.workers), nil
	}
	s.opt.Attach = func(_ context.Context, pid int) (*capture.Capture, error) {
		switch pid {
		case s.workers[0].PID:
			return nil, &proc.Error{PID: pid, What: "attach to process", Err: proc.ErrPermission}
		case s.workers[1].PID:
			return nil, &proc.Error{PID: pid, What: "attach to process", Err: proc.ErrNoProcess}
		}
		return sample(pid), nil
	}
	s.runUntil("all three were tried", func(c *counts) bool {
		return c.observed[outcomeFailed] == 1 && c.observed[outcomeGone] == 1 && c.observed[outcomeSeen] == 1 && c.failures["output"] == 1
	})
	for why, least := range map[string]int{"not_permitted": 1, "capture": 1, "rules": 1, "output": 1, "find_workers": 1} {
		if n := s.d.counts.failures[why]; n < least {
			t.Errorf("%d failures %q, want %d", n, why, least)
		}
	}
	if n := len(s.log); n != 5 {
		t.Errorf("%d lines were logged, want one for each reason: %q", n, s.log)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAnotherProcessWithThePidIsNotObserved(t *testing.T) {
	s := newStand(t, 1)
	d := New(s.opt)
	d.opt.Attach = func(context.Context, int) (*capture.Capture, error) {
		t.Error("it was observed")
		return nil, nil
	}
	id := s.workers[0].ID
	id.Start++
	if _, err := d.attach(t.Context(), id); !errors.Is(err, proc.ErrNoProcess) {
		t.Errorf("%v, want ErrNoProcess", err)
	}
}

func TestFindingIsOneBoundedLine(t *testing.T) {
	s := newStand(t, 1)
	long := strings.Repeat("\"\\\u202e😀\x01", 10_000)
	s.opt.Attach = func(_ context.Context, pid int) (*capture.Capture, error) {
		c := sample(pid)
		c.Target.Cmdline, c.Target.Exe, c.Target.Request = long, long, &capture.Request{Method: long, URI: long, Script: long}
		f := c.Stacks[0].Frames[0]
		f.Function, f.File, f.Class = long, long, long
		for range 500 {
			c.Stacks[0].Frames = append(c.Stacks[0].Frames, f)
			c.Observation.Notes = append(c.Observation.Notes, long)
		}
		return c, nil
	}
	s.opt.Judge = func(*capture.Capture) (report.Verdict, error) {
		f := report.Finding{Rule: "a.b", Severity: "low", Kind: "cause", Title: long, Message: long, Fix: long, PHP: report.Site{Function: long, Class: long, File: long}}
		for range 100 {
			f.Evidence = append(f.Evidence, report.Evidence{What: long})
		}
		return report.Verdict{Findings: []report.Finding{f, f, f, f, f, f, f, f}, Notes: []string{long}}, nil
	}
	s.runUntil("there is a finding", func(c *counts) bool { return len(c.findings) > 0 })
	line := s.out.String()
	if n := len(line); n > 48<<10 || strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		t.Errorf("the finding has %d bytes and %d line ends; journald takes 48 KiB", n, strings.Count(line, "\n"))
	}
	var w report.Watched
	if err := json.Unmarshal([]byte(line), &w); err != nil || w.Worker.PID != s.workers[0].PID || w.Worker.Pool != "www" || w.Trigger.Kind != "cpu" {
		t.Errorf("read back: %v, %+v", err, w.Worker)
	}
}

func TestSystemdHearsHowItGoes(t *testing.T) {
	s := newStand(t, 0)
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	env := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
	s.opt.Env = func(k string) string { return env[k] }
	reloads := make(chan os.Signal, 1)
	reloads <- os.Interrupt
	reloaded := false
	s.opt.Reloads, s.opt.Reload = reloads, func() { reloaded = true }
	s.runUntil("it has looked for a while", func(c *counts) bool { return c.ticks > 12 && reloaded })
	_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
	var said []string
	for b := make([]byte, 1000); ; {
		n, err := l.Read(b)
		if err != nil {
			t.Fatalf("%v; heard %q", err, said)
		}
		if said = append(said, string(b[:n])); said[len(said)-1] == "STOPPING=1" {
			break
		}
	}
	all := strings.Join(said, "|")
	if said[0] != "READY=1\nSTATUS=watching 0 workers" || strings.Count(all, "WATCHDOG=1") < 2 || !strings.Contains(all, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("heard %q", said)
	}
}

func TestCommandsThatWaitAreBounded(t *testing.T) {
	s := newStand(t, 0)
	s.opt.Command = &Command{Args: []string{"/bin/sleep", "60"}, For: time.Minute, Errs: &strings.Builder{}}
	d := New(s.opt)
	for i := range maxWaiting + 3 {
		d.tell(sample(i+1), watch.Trigger{ID: watch.ID{PID: i + 1}, Kind: watch.CPU, At: noon}, "")
	}
	if n := d.counts.commands["dropped"]; n != 3 {
		t.Errorf("%d findings were not handed on, want 3 (%v)", n, fmt.Sprint(d.counts.commands))
	}
}
