package testphp

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// containerPool is php-fpm's configuration in a container: workers that are not
// root's, as distributions have them.
const containerPool = `[global]
error_log = /run/fpm.log
daemonize = no
[www]
listen = /run/fpm.sock
listen.mode = 0666
user = www-data
group = www-data
pm = static
pm.max_children = %d
catch_workers_output = no
php_admin_value[memory_limit] = -1
php_admin_value[max_execution_time] = 0
php_admin_value[auto_prepend_file] = /etc/prepend.php
`

// StartContainerFPM starts a container whose first process is php-fpm's master.
// The pids in the Pool are ours.
func StartContainerFPM(t testing.TB, is Isolation, trees []string, fpm string, workers int) (*Container, *Pool) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{}
	for name, text := range map[string]string{"/etc/pool.conf": fmt.Sprintf(containerPool, workers), "/etc/prepend.php": prepend} {
		path := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files[name] = path
	}
	trees = append([]string{Tree(t, nil, files)}, trees...)
	c := StartContainer(t, is, trees, "/bin/sh", "-c", `echo ready; exec "$0" "$@"`, fpm, "-n", "-y", "/etc/pool.conf")
	p := &Pool{Master: c.PID, Socket: c.Root + "/run/fpm.sock", log: c.Root + "/run/fpm.log"}
	p.awaitWorkers(t, workers)
	return c, p
}

// Inside is the id that a process has in its container.
func Inside(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(v)
			n, err := strconv.Atoi(f[len(f)-1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("process %d has no NSpid", pid)
	return 0
}
