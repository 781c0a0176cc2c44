package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// watched is a phpwhy watch that runs, with a listener; what it prints is in
// the files findings and stderr of its folder.
type watched struct {
	cmd      *exec.Cmd
	url, dir string
}

// startWatch starts one and waits until it watches.
func startWatch(ctx context.Context, phpwhy, dir string, args ...string) (*watched, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	w := &watched{cmd: exec.Command(phpwhy, append([]string{"watch", "--listen", addr}, args...)...), url: "http://" + addr, dir: dir}
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for name, to := range map[string]*io.Writer{"findings": &w.cmd.Stdout, "stderr": &w.cmd.Stderr} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		*to = f
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	return w, until(ctx, readyTimeout, func() bool {
		r, err := http.Get(w.url + "/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// stderr is what it has written there.
func (w *watched) stderr() string {
	b, err := os.ReadFile(filepath.Join(w.dir, "stderr"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// metrics reads its metrics, by their names without the prefix.
func (w *watched) metrics() (map[string]float64, error) {
	r, err := http.Get(w.url + "/metrics")
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	out := make(map[string]float64)
	s := bufio.NewScanner(r.Body)
	for s.Scan() {
		name, value, ok := strings.Cut(strings.TrimPrefix(s.Text(), "phpwhy_watch_"), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			out[name] = v
		}
	}
	return out, s.Err()
}

// end ends it as systemd does, and returns how long that took.
func (w *watched) end() (time.Duration, error) {
	begin := time.Now()
	if err := w.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	force := time.AfterFunc(patience, func() { _ = w.cmd.Process.Kill() })
	defer force.Stop()
	if err := w.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("phpwhy watch: %w: %s", err, w.stderr())
	}
	return time.Since(begin), nil
}
