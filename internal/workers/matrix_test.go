//go:build matrix

package workers

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// These tests look for PHP inside other programs, which scripts/matrix installs
// under .cache/matrix.

func fixture(t *testing.T, name string) string {
	t.Helper()
	p := filepath.Join(testphp.Root(t), ".cache", "matrix", name)
	if _, err := os.Stat(p); err != nil {
		testphp.Missing(t, p+"; run scripts/matrix")
	}
	return p
}

// group starts a program whose children end with the test.
func group(t *testing.T, c *exec.Cmd) int {
	t.Helper()
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait()
	})
	return c.Process.Pid
}

// children are the found workers whose parent is this one.
func children(t *testing.T, fi *Finder, parent int) []Worker {
	t.Helper()
	ws, err := fi.Find(context.Background(), Filter{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(ws, func(w Worker) bool { return w.PPID != parent && w.PID != parent })
}

// TestApachesWorkersAreFoundWithoutTheirMaster has mod_php in three processes
// that Apache's first one has forked.
func TestApachesWorkersAreFoundWithoutTheirMaster(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	dir := t.TempDir()
	conf := filepath.Join(dir, "httpd.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `ServerRoot %[1]s
Listen 127.0.0.1:%[2]d
ServerName localhost
PidFile %[1]s/pid
ErrorLog %[1]s/error.log
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule php_module %[3]s
StartServers 3
MinSpareServers 3
MaxSpareServers 3
MaxRequestWorkers 3
User www-data
Group www-data
`, dir, port, fixture(t, "libphp8.2.so")), 0o600); err != nil {
		t.Fatal(err)
	}
	master := group(t, exec.Command(testphp.Require(t, "apache2"), "-f", conf, "-D", "FOREGROUND"))
	fi := NewFinder()
	var ws []Worker
	for range 100 {
		if ws = children(t, fi, master); len(ws) == 3 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if len(ws) != 3 || slices.Contains(pids(ws), master) {
		t.Errorf("found %v; the master is %d", pids(ws), master)
	}
}

// TestPHPInsideNodeIsFound has PHP in a library that Node has loaded; a Node
// without it is no worker.
func TestPHPInsideNodeIsFound(t *testing.T) {
	node := testphp.Require(t, "node")
	for _, tt := range []struct {
		name, code string
		want       bool
	}{
		{"with PHP", fmt.Sprintf("new (require('%s').Php)({docroot: '/tmp'}); console.log('ready'); setTimeout(() => {}, 600000)", fixture(t, "node_modules/@platformatic/php-node/index.js")), true},
		{"without", "console.log('ready'); setTimeout(() => {}, 600000)", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := exec.Command(node, "-e", tt.code)
			out, err := c.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			pid := group(t, c)
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
				t.Fatalf("%q, %v", line, err)
			}
			if ws := children(t, NewFinder(), pid); (len(ws) == 1) != tt.want {
				t.Errorf("found %v", ws)
			}
		})
	}
}
