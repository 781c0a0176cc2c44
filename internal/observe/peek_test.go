package observe

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/testphp"
	"github.com/phpwhy/phpwhy/internal/zend"
)

func startOf(t *testing.T, pid int) uint64 {
	t.Helper()
	ts, err := proc.ReadTimes(pid)
	if err != nil {
		t.Fatal(err)
	}
	return ts.Start
}

const agedPage = `<?php
echo "\nready\n"; while (ob_get_level()) ob_end_flush(); flush();
while (true) usleep(10000);
`

func TestPeekTellsIdleWorkersFromRequests(t *testing.T) {
	for name, fpm := range map[string]string{"stripped": testphp.StrippedFPM(t), "dwarf": testphp.DWARFFPM(t)} {
		t.Run(name, func(t *testing.T) {
			script := filepath.Join(t.TempDir(), "aged.php")
			if err := os.WriteFile(script, []byte(agedPage), 0o644); err != nil {
				t.Fatal(err)
			}
			pool := testphp.FPM(t, fpm, 3)
			before := time.Now()
			pid := pool.Hang(t, script, "")
			p := NewPeeker()
			for _, w := range pool.Workers {
				got, err := p.Peek(w, startOf(t, w))
				if err != nil {
					t.Fatal(err)
				}
				if w != pid {
					if !got.Idle {
						t.Errorf("worker %d waits, and shows %+v", w, got)
					}
					continue
				}
				again, err := p.Peek(w, startOf(t, w))
				if err != nil || got.Request == "" || again.Request != got.Request {
					t.Errorf("worker %d is in one request, and shows %+v, then %+v (%v)", w, got, again, err)
				}
				if got.Idle || !got.Web || got.Start.Before(before.Add(-time.Second)) || got.Start.After(time.Now()) {
					t.Errorf("worker %d is in a request since %v, and shows %+v", w, before, got)
				}
			}
			if n := len(p.engines); n != 1 {
				t.Errorf("%d engines were recognised for workers of one master, want 1", n)
			}
			p.Keep(func(at int, _ uint64) bool { return at == pid })
			if n := len(p.procs); n != 1 {
				t.Errorf("%d processes are remembered, want 1", n)
			}
		})
	}
}

func TestPeekAtThreads(t *testing.T) {
	for _, dir := range testphp.Builds(t) {
		name := filepath.Base(dir)
		if !strings.HasSuffix(name, "-zts") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := testphp.Start(t, filepath.Join(dir, "bin/php"), testphp.Hang(t, "sleep.php"))
			got, err := NewPeeker().Peek(w.PID, startOf(t, w.PID))
			if err != nil || got.Idle || got.Web {
				t.Errorf("a script of the command line shows %+v (%v)", got, err)
			}
		})
	}
}

func TestPeekIsNotDeceivedByAReusedPid(t *testing.T) {
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "sleep.php"))
	p := NewPeeker()
	if got, err := p.Peek(w.PID, startOf(t, w.PID)); err != nil || got.Web || got.Idle {
		t.Errorf("a script shows %+v (%v)", got, err)
	}
	if _, err := p.Peek(w.PID, startOf(t, w.PID)+1); !errors.Is(err, proc.ErrNoProcess) {
		t.Errorf("%v, want ErrNoProcess", err)
	}
	start := startOf(t, w.PID)
	w.Kill()
	if _, err := p.Peek(w.PID, start); !errors.Is(err, proc.ErrNoProcess) {
		t.Errorf("%v, want ErrNoProcess", err)
	}
}

func TestPeekRemembersWhatIsNotPHP(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	p := NewPeeker()
	start := startOf(t, c.Process.Pid)
	for range 2 {
		if _, err := p.Peek(c.Process.Pid, start); !errors.Is(err, zend.ErrNotPHP) {
			t.Errorf("%v, want ErrNotPHP", err)
		}
	}
	if n := len(p.procs); n != 1 {
		t.Errorf("%d processes are remembered, want 1", n)
	}
}
