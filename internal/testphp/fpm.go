package testphp

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Pool is a running php-fpm with one static pool.
type Pool struct {
	Master  int
	Workers []int  // in the order in which the master lists its children
	Socket  string // where the pool listens
	log     string
}

// prepend makes each response name its worker. It has ended, and left every
// stack, before the script of the request begins.
const prepend = "<?php header('X-Worker: ' . getmypid());\n"

// FPM starts a php-fpm with a number of static workers and stops it when the
// test ends. No ini file is read; ini adds settings, "memory_limit=1G".
func FPM(t testing.TB, fpm string, workers int, ini ...string) *Pool {
	t.Helper()
	for i, s := range ini {
		k, v, _ := strings.Cut(s, "=")
		ini[i] = fmt.Sprintf("php_admin_value[%s] = %s", k, v)
	}
	return FPMWith(t, fpm, workers, ini...)
}

// FPMWith is FPM with further lines of the pool's configuration,
// "catch_workers_output = yes".
func FPMWith(t testing.TB, fpm string, workers int, lines ...string) *Pool {
	t.Helper()
	dir, err := os.MkdirTemp("", "testphp") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &Pool{Socket: filepath.Join(dir, "fpm.sock"), log: filepath.Join(dir, "fpm.log")}
	conf := fmt.Sprintf(`[global]
error_log = %[1]s/fpm.log
daemonize = no
[www]
listen = %[1]s/fpm.sock
user = root
group = root
pm = static
pm.max_children = %[2]d
clear_env = no
catch_workers_output = no
php_admin_value[memory_limit] = -1
php_admin_value[auto_prepend_file] = %[1]s/prepend.php
`, dir, workers)
	for _, s := range lines {
		conf += s + "\n"
	}
	for name, text := range map[string]string{"fpm.conf": conf, "prepend.php": prepend} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := limited([]string{fpm, "-n", "-R", "-y", filepath.Join(dir, "fpm.conf")})
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, so that no worker can be left behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.Master = cmd.Process.Pid
	t.Cleanup(func() {
		_ = syscall.Kill(-p.Master, syscall.SIGKILL)
		_ = cmd.Wait()
		// The workers are not this process's children: it can't wait for them.
		for end := time.Now().Add(readyTimeout); slices.ContainsFunc(p.Workers, Alive); {
			if time.Now().After(end) {
				t.Errorf("a worker of %v survives its pool", p.Workers)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	p.awaitWorkers(t, workers)
	return p
}

func (p *Pool) awaitWorkers(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(readyTimeout); ; time.Sleep(10 * time.Millisecond) {
		p.Workers = children(p.Master)
		c, err := net.Dial("unix", p.Socket)
		if err == nil {
			_ = c.Close()
		}
		if err == nil && len(p.Workers) == n {
			return
		}
		if time.Now().After(end) || !Alive(p.Master) {
			b, _ := os.ReadFile(p.log)
			t.Fatalf("php-fpm did not start %d workers (has %v; %v): %s", n, p.Workers, err, b)
		}
	}
}

// Hang sends a request for a script and returns, once the script has printed
// its line "ready", the pid of the worker that runs it. The request stays
// open until the test ends. query is the part of the URI after "?".
func (p *Pool) Hang(t testing.TB, script, query string) int {
	t.Helper()
	return p.hang(t, script, func(rw io.ReadWriter) (string, error) { return Request(rw, script, query) })
}

// Route is Hang behind a front controller: the web server has been asked for a
// URI, and hands every one to the script at /index.php.
func (p *Pool) Route(t testing.TB, script, uri string) int {
	t.Helper()
	_, query, _ := strings.Cut(uri, "?")
	params := requestParams(script, query)
	for i := range params {
		switch params[i][0] {
		case "REQUEST_URI":
			params[i][1] = uri
		case "SCRIPT_NAME":
			params[i][1] = "/index.php"
		}
	}
	return p.hang(t, script, func(rw io.ReadWriter) (string, error) {
		if err := fcgiRequest(rw, params); err != nil {
			return "", err
		}
		return fcgiReadUntil(rw, "\nready\n")
	})
}

// Upload is Hang for a request that says it has a body of some bytes and never
// sends it, and whose script does not need it to begin.
func (p *Pool) Upload(t testing.TB, script string, bytes int) int {
	t.Helper()
	return p.hang(t, script, func(rw io.ReadWriter) (string, error) {
		if err := fcgiBeginRequest(rw, uploadParams(script, bytes)); err != nil {
			return "", err
		}
		return fcgiReadUntil(rw, "\nready\n")
	})
}

// UploadFirst is Upload for a script that does not begin before the body is there.
func (p *Pool) UploadFirst(t testing.TB, script string, bytes int) {
	t.Helper()
	c, err := net.Dial("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := fcgiBeginRequest(c, uploadParams(script, bytes)); err != nil {
		t.Fatal(err)
	}
}

func uploadParams(script string, bytes int) [][2]string {
	params := requestParams(script, "")
	for i := range params {
		if params[i][0] == "REQUEST_METHOD" {
			params[i][1] = "POST"
		}
	}
	return append(params, [2]string{"CONTENT_TYPE", "application/x-www-form-urlencoded"}, [2]string{"CONTENT_LENGTH", strconv.Itoa(bytes)})
}

func (p *Pool) hang(t testing.TB, script string, ask func(io.ReadWriter) (string, error)) int {
	t.Helper()
	c, err := net.Dial("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(readyTimeout))
	head, err := ask(c)
	if err != nil {
		log, _ := os.ReadFile(p.log)
		t.Fatalf("%s: %v; response: %q; log: %s", script, err, head, log)
	}
	for line := range strings.Lines(head) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && k == "X-Worker" {
			if pid, err := strconv.Atoi(v); err == nil {
				settle()
				return pid
			}
		}
	}
	t.Fatalf("the response names no worker: %q", head)
	return 0
}

func requestParams(script, query string) [][2]string {
	uri := "/" + filepath.Base(script)
	if query != "" {
		uri += "?" + query
	}
	return [][2]string{
		{"GATEWAY_INTERFACE", "CGI/1.1"}, {"SERVER_PROTOCOL", "HTTP/1.1"},
		{"REQUEST_METHOD", "GET"}, {"REQUEST_URI", uri}, {"QUERY_STRING", query},
		{"SCRIPT_FILENAME", script}, {"SCRIPT_NAME", "/" + filepath.Base(script)},
		{"SERVER_NAME", "test"}, {"REMOTE_ADDR", "127.0.0.1"},
	}
}

// children lists the children of a process by /proc/PID/task/PID/children.
func children(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			out = append(out, n)
		}
	}
	return out
}
