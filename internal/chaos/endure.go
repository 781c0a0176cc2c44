package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

//go:embed testdata/endure
var endureFiles embed.FS

const endureConf = `[global]
error_log = %[1]s/fpm.log
daemonize = no
[www]
listen = %[1]s/fpm.sock
listen.backlog = 511
user = root
group = root
pm = ondemand
pm.max_children = 12
pm.max_requests = 1
pm.process_idle_timeout = 1s
`

// The hangs: testdata/endure/hang.php lasts for hangs; those of the command
// line are killed after as long, and each fourth hang is killed when it is
// likely being observed.
const (
	hangs      = 12 * time.Second
	killedAt   = 6 * time.Second
	watchAge   = 5 * time.Second
	watchFor   = 3 * time.Second // --during
	observeFor = 2 * time.Second
	keptFiles  = 10
)

// endurance is a phpwhy watch over workers that are born and die all the time.
type endurance struct {
	phpwhy, php, fpm string
	length           time.Duration
	every            time.Duration // between two hangs
	clients          int
	pause            time.Duration // of a client, between two requests
	into, tmp        string
	errs             io.Writer

	requests, scripts, refused atomic.Int64

	mu   sync.Mutex
	hung []*hung

	watch             *watched
	first, last, peak figures
	settled           bool // first holds
	idlers            idlers
}

// hung is one hang that was made.
type hung struct {
	pid    int
	kind   string
	killed bool // before its time
}

// figures are what a watch takes.
type figures struct {
	at                                time.Duration
	resident, heap, files, goroutines float64
	threads, children                 int
	cpu, ticks, tickTime              float64
}

func runEndurance(ctx context.Context, args []string, out, errs io.Writer) (err error) {
	e := &endurance{errs: errs}
	f := flag.NewFlagSet("chaos endurance", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&e.phpwhy, "phpwhy", "bin/phpwhy", "the binary to test")
	f.StringVar(&e.php, "php", "/usr/bin/php8.2", "the php of scripts")
	f.StringVar(&e.fpm, "fpm", "/usr/sbin/php-fpm8.2", "the php-fpm of the pool")
	f.DurationVar(&e.length, "for", 10*time.Minute, "how long it lasts")
	f.DurationVar(&e.every, "hang", 10*time.Second, "time between two hangs")
	f.IntVar(&e.clients, "c", 2, "clients, each of which sends one request after the other")
	f.DurationVar(&e.pause, "pause", 60*time.Millisecond, "of a client between two requests")
	f.IntVar(&e.idlers.n, "idle", 200, "idle workers to measure a watch over, at first")
	f.StringVar(&e.into, "into", "", "also put the table into this file, between <!-- endurance --> and <!-- /endurance -->")
	if err := f.Parse(args); err != nil {
		return err
	}
	if e.length < 30*time.Second || e.clients < 0 || f.NArg() > 0 {
		return errors.New("usage: chaos endurance [-for 10m] [-hang 10s] [-c 2] [-pause 60ms]; at least 30s; see -help")
	}
	if e.phpwhy, err = filepath.Abs(e.phpwhy); err != nil {
		return err
	}
	if e.tmp, err = os.MkdirTemp("", "endurance"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(e.tmp)) }()
	if e.idlers.n > 0 {
		if e.idlers, err = e.idle(ctx, e.idlers.n); err != nil {
			return err
		}
	}
	pool, err := e.serve(ctx)
	if pool != nil {
		defer killGroup(pool)
	}
	if err != nil {
		return err
	}
	return e.endure(ctx, out)
}

// serve starts php-fpm.
func (e *endurance) serve(ctx context.Context) (*exec.Cmd, error) {
	for _, name := range []string{"page.php", "hang.php"} {
		b, err := endureFiles.ReadFile("testdata/endure/" + name)
		if err = errors.Join(err, os.WriteFile(filepath.Join(e.tmp, name), b, 0o600)); err != nil {
			return nil, err
		}
	}
	conf := filepath.Join(e.tmp, "fpm.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, endureConf, e.tmp), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("nice", e.fpm, "-n", "-R", "-y", conf) // the load makes way, phpwhy does not
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, until(ctx, readyTimeout, func() bool {
		_, err := e.ask("page.php", "")
		return err == nil
	})
}

// ask sends one request and returns what came until the line "ready". The
// connection stays open until the worker closes it.
func (e *endurance) ask(script, query string) (string, error) {
	c, err := net.Dial("unix", filepath.Join(e.tmp, "fpm.sock"))
	if err != nil {
		return "", err
	}
	_ = c.SetDeadline(time.Now().Add(readyTimeout))
	text, err := testphp.Request(c, filepath.Join(e.tmp, script), query)
	go func() { // a worker whose client goes away might end early
		_ = c.SetDeadline(time.Now().Add(2 * hangs))
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}()
	return text, err
}

// endure lets everything happen at once until the time is over.
func (e *endurance) endure(ctx context.Context, out io.Writer) error {
	var err error
	e.watch, err = startWatch(ctx, e.phpwhy, e.tmp, "--match", e.tmp+"|pool www", "--cpu", "50%", "--during", watchFor.String(), "--age", watchAge.String(),
		"--observe", observeFor.String(), "--max-per-hour", "0", "--pause-budget", "0", "--out", filepath.Join(e.tmp, "captures"), "--keep", strconv.Itoa(keptFiles),
		"--exec", "/bin/true")
	if e.watch != nil {
		defer killGroup(e.watch.cmd)
	}
	if err != nil {
		return err
	}
	load, stop := context.WithTimeout(ctx, e.length)
	defer stop()
	var busy sync.WaitGroup
	for range e.clients {
		busy.Go(func() { e.client(load) })
	}
	busy.Go(func() { e.commands(load) })
	busy.Go(func() { e.hang(load, &busy) })
	begin := time.Now()
	for load.Err() == nil {
		if err := e.measure(time.Since(begin)); err != nil {
			stop()
			busy.Wait()
			return fmt.Errorf("%w; phpwhy wrote: %s", err, e.watch.stderr())
		}
		select {
		case <-load.Done():
		case <-time.After(2 * time.Second):
		}
	}
	busy.Wait()
	// What is queued is observed; a collection follows each observation.
	time.Sleep(hangs)
	_ = until(ctx, patience, func() bool {
		m, err := e.watch.metrics()
		return err == nil && m["observing"] == 0 && m["waiting"] == 0
	})
	if err := e.measure(time.Since(begin)); err != nil {
		return fmt.Errorf("%w; phpwhy wrote: %s", err, e.watch.stderr())
	}
	took, err := e.watch.end()
	terr := intoFile(e.into, "endurance", out, func(w io.Writer) error { return e.report(ctx, w, took) })
	return errors.Join(err, terr, e.verdict())
}

// client sends one request after the other. Each is a worker's only one.
func (e *endurance) client(ctx context.Context) {
	for ctx.Err() == nil {
		if _, err := e.ask("page.php", ""); err != nil {
			e.refused.Add(1)
		} else {
			e.requests.Add(1)
		}
		sleep(ctx, e.pause)
	}
}

// commands runs short scripts on the command line.
func (e *endurance) commands(ctx context.Context) {
	for ctx.Err() == nil {
		if exec.Command("nice", e.php, "-n", filepath.Join(e.tmp, "page.php")).Run() == nil {
			e.scripts.Add(1)
		}
		sleep(ctx, 3*e.pause)
	}
}

// hang makes one hang after the other, several of them at a time.
func (e *endurance) hang(ctx context.Context, busy *sync.WaitGroup) {
	for i := 0; ctx.Err() == nil; i++ {
		h := &hung{kind: []string{"cpu", "wait", "script"}[i%3], killed: i%4 == 3}
		busy.Go(func() {
			if err := e.hangOnce(ctx, h); err != nil {
				fmt.Fprintf(e.errs, "endurance: %s: %v\n", h.kind, err)
				return
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.hung = append(e.hung, h)
		})
		sleep(ctx, e.every)
	}
}

// hangOnce lets one worker hang until it ends, or is ended.
func (e *endurance) hangOnce(ctx context.Context, h *hung) error {
	var cmd *exec.Cmd
	if h.kind == "script" {
		cmd = exec.Command("nice", e.php, "-n", "-r", "while (true) $i = 0; // "+e.tmp)
		if err := cmd.Start(); err != nil {
			return err
		}
		h.pid = cmd.Process.Pid
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	} else {
		text, err := e.ask("hang.php", "how="+h.kind)
		if err != nil {
			return err
		}
		_, rest, _ := strings.Cut(text, "worker ")
		if _, err := fmt.Sscan(rest, &h.pid); err != nil {
			return fmt.Errorf("the response names no worker: %q", text)
		}
	}
	if !h.killed {
		time.Sleep(hangs)
		return nil
	}
	time.Sleep(killedAt)
	return syscall.Kill(h.pid, syscall.SIGKILL)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
