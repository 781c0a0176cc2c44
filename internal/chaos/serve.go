package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

const fpmConf = `[global]
error_log = %[1]s/fpm.log
daemonize = no
[www]
listen = %[1]s/fpm.sock
listen.backlog = 511
user = root
group = root
pm = static
pm.max_children = %[2]d
php_admin_value[memory_limit] = 64M
`

const nginxConf = `daemon off;
user root;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path %[1]s/body; fastcgi_temp_path %[1]s/fastcgi; proxy_temp_path %[1]s/proxy;
  scgi_temp_path %[1]s/scgi; uwsgi_temp_path %[1]s/uwsgi;
  keepalive_requests 1000000;
  server {
    listen 127.0.0.1:%[2]d;
    location / {
      fastcgi_pass unix:%[1]s/fpm.sock;
      fastcgi_param SCRIPT_FILENAME %[1]s$uri;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param REQUEST_URI $request_uri;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param GATEWAY_INTERFACE CGI/1.1;
      fastcgi_param SERVER_PROTOCOL $server_protocol;
    }
  }
}
`

// serve starts the pool and nginx. The function it returns ends them, also
// after an error.
func (l *load) serve(ctx context.Context) (stop func(), err error) {
	var started []*exec.Cmd
	stop = func() {
		for _, c := range started {
			killGroup(c)
		}
	}
	files, err := loadFiles.ReadDir("testdata/load")
	if err != nil {
		return stop, err
	}
	for _, f := range files {
		b, err := loadFiles.ReadFile("testdata/load/" + f.Name())
		if err = errors.Join(err, os.WriteFile(filepath.Join(l.tmp, f.Name()), b, 0o600)); err != nil {
			return stop, err
		}
	}
	port, err := freePort()
	if err != nil {
		return stop, err
	}
	l.url = fmt.Sprintf("http://127.0.0.1:%d/", port)
	for _, c := range []struct {
		file, text string
		argv       []string
	}{
		{"fpm.conf", fmt.Sprintf(fpmConf, l.tmp, l.workers), []string{l.fpm, "-n", "-R", "-y", l.tmp + "/fpm.conf"}},
		{"nginx.conf", fmt.Sprintf(nginxConf, l.tmp, port), []string{l.nginx, "-c", l.tmp + "/nginx.conf", "-e", l.tmp + "/nginx.log"}},
	} {
		if err := os.WriteFile(filepath.Join(l.tmp, c.file), []byte(c.text), 0o600); err != nil {
			return stop, err
		}
		cmd := exec.Command(c.argv[0], c.argv[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			return stop, err
		}
		started = append(started, cmd)
	}
	l.master = started[0].Process.Pid
	if err := until(ctx, readyTimeout, func() bool { return len(children(l.master)) == l.workers && l.answers(ctx) }); err != nil {
		fpm, _ := os.ReadFile(filepath.Join(l.tmp, "fpm.log"))
		nginx, _ := os.ReadFile(filepath.Join(l.tmp, "nginx.log"))
		return stop, fmt.Errorf("the pool does not answer: %w; php-fpm: %s; nginx: %s", err, fpm, nginx)
	}
	return stop, nil
}

func (l *load) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+"alloc.php", nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	return port, ln.Close()
}
