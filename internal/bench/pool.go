package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The pool: php-fpm behind nginx. Most workers hang, the others serve pages.
const (
	poolWorkers = 200
	poolLocked  = 120 // of which one has the lock
	poolAsleep  = 40
	poolLoops   = 4
	poolClients = 4 // that ask for pages
	poolReady   = 60 * time.Second
	poolThink   = 20 * time.Millisecond
)

const poolFPM = `[global]
daemonize = no
error_log = %[1]s/fpm.log
[bench]
listen = %[1]s/fpm.sock
listen.backlog = 1024
user = root
group = root
pm = static
pm.max_children = %[2]d
`

const poolNginx = `daemon off;
user root;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
events { worker_connections 2048; }
http {
  access_log off;
  client_body_temp_path %[1]s/body; fastcgi_temp_path %[1]s/fastcgi; proxy_temp_path %[1]s/proxy;
  scgi_temp_path %[1]s/scgi; uwsgi_temp_path %[1]s/uwsgi;
  fastcgi_read_timeout 900;
  server {
    listen 127.0.0.1:%[2]d;
    location / {
      fastcgi_pass unix:%[1]s/fpm.sock;
      fastcgi_param SCRIPT_FILENAME %[1]s$uri;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param REQUEST_URI $request_uri;
    }
  }
}
`

// pool is a php-fpm with an nginx in front.
type pool struct {
	dir, url string
	master   int
	stop     context.CancelFunc
	ended    sync.WaitGroup
}

// startPool starts them, and what hangs and what asks for pages.
func (b *bench) startPool(ctx context.Context) (*pool, error) {
	dir := filepath.Join(b.tmp, "pool")
	from := filepath.Join(b.root, "internal", "bench", "testdata", "pool")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	ctx, stop := context.WithCancel(ctx)
	p := &pool{dir: dir, url: fmt.Sprintf("http://127.0.0.1:%d/", port), stop: stop}
	for _, c := range []struct {
		file, text string
		argv       []string
	}{
		{"fpm.conf", fmt.Sprintf(poolFPM, dir, poolWorkers), []string{b.fpm, "-n", "-R", "-y", dir + "/fpm.conf"}},
		{"nginx.conf", fmt.Sprintf(poolNginx, dir, port), []string{"nginx", "-c", dir + "/nginx.conf", "-e", dir + "/nginx.log"}},
	} {
		err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o600)
		cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second
		if err = errors.Join(err, cmd.Start()); err != nil {
			p.end()
			return nil, err
		}
		if p.master == 0 {
			p.master = cmd.Process.Pid
		}
		p.ended.Go(func() { _ = cmd.Wait() })
	}
	for until := time.Now().Add(poolReady); len(p.workers()) < poolWorkers || p.get(ctx, "page.php") != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) || ctx.Err() != nil {
			p.end()
			return nil, fmt.Errorf("the pool does not answer: %w", ctx.Err())
		}
	}
	for script, n := range map[string]int{"lock.php": poolLocked, "sleep.php": poolAsleep, "loop.php": poolLoops} {
		for range n {
			go func() { _ = p.get(ctx, script) }()
		}
	}
	for range poolClients {
		go func() {
			for ctx.Err() == nil {
				_ = p.get(ctx, "page.php")
				time.Sleep(poolThink)
			}
		}()
	}
	time.Sleep(3 * time.Second) // until all of them hang
	return p, nil
}

func (p *pool) end() {
	p.stop()
	p.ended.Wait()
}

// workers are the children of the master.
func (p *pool) workers() []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.master, p.master))
	return strings.Fields(string(b))
}

func (p *pool) get(ctx context.Context, script string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+script, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// round is one look at all workers.
type round struct {
	took        time.Duration
	pauses      []time.Duration // of each worker, sorted
	rss         int64           // KiB
	said        string
	seen, stuck int // workers with a stack, and of those in the group that waits for the lock
}

func (b *bench) collectRound(ctx context.Context, p *pool) (round, error) {
	var r round
	cmd := exec.CommandContext(ctx, b.phpwhy, "collect", "--pid", strings.Join(p.workers(), ","), "-o", filepath.Join(b.tmp, "pool.jsonl.zst"), "--format", "json")
	from := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return r, err
	}
	r.took = time.Since(from)
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.rss = u.Maxrss
	}
	var doc struct {
		Summary string
		Groups  []struct {
			Title   string
			PHP     struct{ File string }
			Workers []int
		}
		Workers []struct {
			Looks int
			Pause int `json:"paused_us_max"`
		}
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return r, err
	}
	for _, g := range doc.Groups {
		if strings.HasSuffix(g.PHP.File, "lock.php") {
			r.stuck = max(r.stuck, len(g.Workers))
		}
	}
	for _, w := range doc.Workers {
		if w.Looks > 0 {
			r.seen++
			r.pauses = append(r.pauses, time.Duration(w.Pause)*time.Microsecond)
		}
	}
	slices.Sort(r.pauses)
	r.said = doc.Summary
	if r.seen == 0 {
		return r, errors.New("nothing was seen")
	}
	return r, nil
}

// each runs a debugger on every worker, one per processor at a time.
func (p *pool) each(ctx context.Context, argv ...string) (time.Duration, error) {
	from := time.Now()
	todo := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range runtime.NumCPU() {
		wg.Go(func() {
			for pid := range todo {
				args := append(slices.Clone(argv[1:]), pid)
				if out, err := exec.CommandContext(ctx, argv[0], args...).CombinedOutput(); err != nil && !strings.Contains(string(out), "#0") {
					mu.Lock()
					failed = fmt.Errorf("%s: %w", argv[0], err)
					mu.Unlock()
				}
			}
		})
	}
	for _, pid := range p.workers() {
		todo <- pid
	}
	close(todo)
	wg.Wait()
	return time.Since(from), failed
}

// spyFor bounds how long phpspy may take to have seen all workers.
const spyFor = 30 * time.Second

// spied runs phpspy on all workers at once, until each has shown up in what it
// prints. It samples without stopping them.
func (p *pool) spied(ctx context.Context, path string) (took time.Duration, seen int, err error) {
	ctx, cancel := context.WithTimeout(ctx, spyFor)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-P", "-P "+strconv.Itoa(p.master), "-T", strconv.Itoa(poolWorkers), "-V", "82", "-d", "p")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	from := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	pids := make(map[string]bool)
	for sc := bufio.NewScanner(out); sc.Scan() && len(pids) < poolWorkers; {
		if pid, ok := strings.CutPrefix(sc.Text(), "# pid = "); ok {
			pids[pid] = true
			took = time.Since(from)
		}
	}
	cancel()
	_ = cmd.Wait() // it was killed
	if len(pids) == 0 {
		return 0, 0, errors.New("it has seen no worker")
	}
	return took, len(pids), nil
}

// poolTable: one look at 200 workers.
func (b *bench) poolTable(ctx context.Context) error {
	p, err := b.startPool(ctx)
	if err != nil {
		return err
	}
	defer p.end()
	fmt.Fprintf(b.out, "\n### One look at a pool of %d workers\n\n%d wait for a lock that one of them has, %d sleep, %d loop, the others serve pages through nginx. "+
		"Debuggers run on one worker per processor at a time. %d rounds, medians.\n\n", poolWorkers, poolLocked, poolAsleep, poolLoops, b.rounds)
	rows := [][]string{{"tool", "all workers", "to gdb", "pause of a worker: median, p99, longest", "memory", "says"}}
	var took []time.Duration
	var last round
	for i := range b.rounds {
		b.progress("pool: round %d of %d", i+1, b.rounds)
		r, err := b.collectRound(ctx, p)
		if err != nil {
			return fmt.Errorf("phpwhy collect: %w", err)
		}
		took, last = append(took, r.took), r
	}
	b.progress("pool: gdb")
	gdb, gdbErr := p.each(ctx, "gdb", "-nx", "-batch", "-ex", "bt", "-p")
	b.progress("pool: eu-stack")
	eu, euErr := p.each(ctx, "eu-stack", "-p")
	q := func(share float64) string {
		return ms(last.pauses[min(len(last.pauses)-1, int(share*float64(len(last.pauses))))])
	}
	rows = append(rows, []string{"`phpwhy collect`", ms(summarize(took).median), ratio(gdb, summarize(took).median),
		q(0.5) + ", " + q(0.99) + ", " + q(1), strconv.FormatInt(last.rss>>10, 10) + " MiB",
		fmt.Sprintf("%d of %d workers seen, %d in the group of the lock: %s", last.seen, poolWorkers, last.stuck, last.said)})
	for _, t := range []struct {
		name string
		took time.Duration
		err  error
	}{{"gdb for each, `bt`", gdb, gdbErr}, {"eu-stack for each", eu, euErr}} {
		row := []string{t.name, ms(t.took), ratio(gdb, t.took), "", "", fmt.Sprintf("%d native stacks", poolWorkers)}
		if t.err != nil {
			row = []string{t.name, b.failure(t.name, t.err), "", "", "", ""}
		}
		rows = append(rows, row)
	}
	if path, err := exec.LookPath("phpspy"); err == nil {
		b.progress("pool: phpspy")
		took, seen, err := p.spied(ctx, path)
		row := []string{"phpspy for all, until each was seen", ms(took), ratio(gdb, took), "none", "", fmt.Sprintf("%d PHP stacks, without native frames", seen)}
		if err != nil {
			row = []string{row[0], b.failure("phpspy", err), "", "", "", ""}
		}
		rows = append(rows, row)
	}
	return table(b.out, rows)
}
