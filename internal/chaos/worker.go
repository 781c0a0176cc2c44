package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// kind is a kind of worker.
type kind string

const (
	kindLoop    kind = "loop"    // one thread in a C loop over mremap
	kindThreads kind = "threads" // four of them
	kindMasked  kind = "masked"  // the same, and all but the first block all signals
	kindConcat  kind = "concat"  // PHP appends to a string
	kindFPM     kind = "fpm"     // a php-fpm worker whose request does that
	kindMaster  kind = "master"  // the master of such a pool
)

// Bounds. The machine may be busy with other things.
const (
	readyTimeout = 30 * time.Second
	poll         = time.Millisecond
)

const (
	fpmChildren    = 2
	fixtureThreads = 4
)

// worker is a real PHP that phpwhy is let loose on.
type worker struct {
	kind   kind
	pid    int // the process that is observed
	page   *page
	stderr string
	began  float64       // seconds since boot
	limit  time.Duration // how long it may take to do something

	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
	conn net.Conn      // the request of kindFPM
	out  *os.File      // kept open: PHP ends when its output has no reader
}

// threads is how many of them loop in C.
func (k kind) threads() uint64 {
	switch k {
	case kindLoop:
		return 1
	case kindThreads, kindMasked:
		return fixtureThreads
	}
	return 0
}

const noSignals = "0000000000000000" // as SigBlk

// startWorker returns when the worker hangs. Its files go to dir.
func (c *config) startWorker(ctx context.Context, k kind, dir string) (*worker, error) {
	w := &worker{kind: k, limit: c.workerLimit, stderr: filepath.Join(dir, "stderr"), done: make(chan struct{})}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return nil, err
	}
	_, _ = fmt.Sscan(string(uptime), &w.began)
	if w.page, err = newPage(filepath.Join(dir, "page")); err != nil {
		return nil, err
	}
	if w.cmd, err = c.workerCommand(k, dir); err != nil {
		return nil, err
	}
	errs, err := os.Create(w.stderr)
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	w.cmd.Stderr = errs
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	w.cmd.Stdout, w.out = in, out
	err = w.cmd.Start()
	_ = in.Close()
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	w.pid = w.cmd.Process.Pid
	go func() { _ = w.cmd.Wait(); close(w.done) }()
	if k == kindFPM || k == kindMaster {
		err = w.awaitPool(ctx, dir, c.script)
	} else {
		_ = out.SetReadDeadline(time.Now().Add(readyTimeout))
		var line string
		if line, err = bufio.NewReader(out).ReadString('\n'); err == nil && line != "ready\n" {
			err = fmt.Errorf("it printed %q", line)
		}
	}
	if err == nil && k != kindMaster && !w.progress(ctx, 2) {
		err = errors.New("it makes no progress")
	}
	if err == nil {
		err = until(ctx, readyTimeout, func() bool {
			return w.page.get(wReady) == k.threads() && status(w.pid, "SigBlk") == noSignals
		})
	}
	if err != nil {
		w.kill()
		return nil, fmt.Errorf("start a %s worker: %w; it wrote: %s", k, err, w.wrote())
	}
	return w, nil
}

// workerCommand is how a worker is started.
func (c *config) workerCommand(k kind, dir string) (*exec.Cmd, error) {
	argv := []string{c.php, "-n", "-d", "memory_limit=-1", c.script, "loop"}
	switch k {
	case kindConcat:
		argv[len(argv)-1] = "concat"
	case kindFPM, kindMaster:
		var err error
		if argv, err = c.fpmCommand(dir); err != nil {
			return nil, err
		}
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+c.preload, "CHAOS_FILE="+filepath.Join(dir, "page"),
		fmt.Sprintf("CHAOS_THREADS=%d", k.threads()))
	if k == kindMasked {
		cmd.Env = append(cmd.Env, "CHAOS_MASKED=1")
	}
	// A group of its own: it is killed with all it has started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, nil
}

// fpmCommand writes a php-fpm's configuration.
func (c *config) fpmCommand(dir string) ([]string, error) {
	conf := fmt.Sprintf(`[global]
error_log = %[1]s/stderr
daemonize = no
[www]
listen = %[1]s/sock
user = root
group = root
pm = static
pm.max_children = %[2]d
php_admin_value[memory_limit] = -1
`, dir, fpmChildren)
	path := filepath.Join(dir, "fpm.conf")
	return []string{c.fpm, "-n", "-R", "-y", path}, os.WriteFile(path, []byte(conf), 0o600)
}

// awaitPool waits for the pool and, of kindFPM, gives one worker its request.
func (w *worker) awaitPool(ctx context.Context, dir, script string) error {
	err := until(ctx, readyTimeout, func() bool {
		var err error
		if w.conn != nil {
			_ = w.conn.Close()
		}
		w.conn, err = net.Dial("unix", filepath.Join(dir, "sock"))
		return err == nil && len(children(w.pid)) == fpmChildren
	})
	if err != nil || w.kind == kindMaster {
		return err
	}
	_ = w.conn.SetDeadline(time.Now().Add(readyTimeout))
	head, err := testphp.Request(w.conn, script, "mode=concat")
	if err != nil {
		return err
	}
	for line := range strings.Lines(head) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "X-Worker: "); ok {
			w.pid, err = strconv.Atoi(v)
			return err
		}
	}
	return fmt.Errorf("the response names no worker: %q", head)
}

// progress says whether the worker goes on doing what it does.
func (w *worker) progress(ctx context.Context, steps uint64) bool {
	if w.kind == kindMaster {
		return w.replaces(ctx)
	}
	from := w.page.get(wLoops)
	done := func() bool { return w.page.get(wLoops) >= from+steps }
	_ = until(ctx, w.limit, func() bool { return done() || !alive(w.pid) })
	return done()
}

// replaces kills a child of the master, which must then have another.
func (w *worker) replaces(ctx context.Context) bool {
	old := children(w.pid)
	if len(old) == 0 {
		return false
	}
	_ = syscall.Kill(old[0], syscall.SIGKILL)
	return until(ctx, w.limit, func() bool {
		now := children(w.pid)
		return len(now) == fpmChildren && !slices.Contains(now, old[0])
	}) == nil
}

// kill ends the worker with all it has started.
func (w *worker) kill() {
	_ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL)
	<-w.done
	if w.conn != nil {
		_ = w.conn.Close()
	}
	_ = w.out.Close()
	_ = w.page.f.Close()
}

func (w *worker) wrote() string {
	b, err := os.ReadFile(w.stderr)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

// fate tells how a worker ended, as far as it is known.
func (w *worker) fate() string {
	s := "its parent is php-fpm"
	if w.kind != kindFPM {
		<-w.done
		s = w.cmd.ProcessState.String()
	}
	if log := lastLines(w.wrote(), keepLines); log != "" {
		s += "; it wrote: " + log
	}
	// The kernel tells of signals that it had to force.
	out, err := exec.Command("dmesg").Output()
	if err != nil {
		return s + "; dmesg: " + err.Error()
	}
	var told []string
	for line := range strings.Lines(string(out)) {
		// Pids are used again, so what was told before it started is another's.
		var at float64
		_, _ = fmt.Sscanf(strings.TrimLeft(line, "[ "), "%f", &at)
		if at >= w.began && strings.Contains(line, fmt.Sprintf("[%d]", w.pid)) {
			told = append(told, strings.TrimSpace(line))
		}
	}
	if len(told) > 0 {
		s += "; the kernel: " + lastLines(strings.Join(told, "\n"), keepLines)
	}
	return s
}

const keepLines = 3 // of a log, in a failure's details

func lastLines(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "; ")
}

var errTimeout = errors.New("it took too long")

// until waits for a condition.
func until(ctx context.Context, limit time.Duration, f func() bool) error {
	for end := time.Now().Add(limit); !f(); time.Sleep(poll) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return errTimeout
		}
	}
	return nil
}
