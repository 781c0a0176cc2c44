package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bounds for a worker, should this process not live to kill it.
const (
	workerMemoryKiB = 4 << 20
	workerCPUSec    = 60
	workerReady     = 20 * time.Second
)

// grown is how long the concat worker runs before it is measured: its string
// has then passed 2 MiB many times over and each 4096 bytes cost an mremap.
const grown = 150 * time.Millisecond

// worker is a php that hangs.
type worker struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

func (b *bench) start(ctx context.Context, script string, args ...string) (*worker, error) {
	limits := fmt.Sprintf(`ulimit -v %d && ulimit -t %d && exec "$@"`, workerMemoryKiB, workerCPUSec)
	argv := append([]string{"-c", limits, "sh", b.php, "-n", "-d", "memory_limit=-1", script}, args...)
	w := &worker{cmd: exec.CommandContext(ctx, "/bin/sh", argv...)}
	pipe, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	late := time.AfterFunc(workerReady, func() { _ = w.cmd.Process.Kill() })
	defer late.Stop()
	w.out = bufio.NewReader(pipe)
	if line, err := w.out.ReadString('\n'); line != "ready\n" {
		w.kill()
		return nil, fmt.Errorf("%s %s printed %q, not ready: %w", b.php, script, line, errors.Join(err, ctx.Err()))
	}
	return w, nil
}

// concat starts the worker of the string append.
func (b *bench) concat(ctx context.Context) (*worker, error) {
	w, err := b.start(ctx, filepath.Join(b.root, "testdata", "hang", "mem.string-concat.php"))
	if err == nil {
		time.Sleep(grown)
	}
	return w, err
}

func (w *worker) pid() string { return strconv.Itoa(w.cmd.Process.Pid) }

func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}

// longestGap waits for gap.php to end and returns what it measured.
func (w *worker) longestGap() (time.Duration, error) {
	rest, err := io.ReadAll(w.out)
	if err != nil {
		return 0, err
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(rest)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("gap.php: %w", err)
	}
	return time.Duration(ns), nil
}
