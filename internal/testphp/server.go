package testphp

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// serverTimeout bounds how long a server takes to start on a busy machine, and
// to end.
const serverTimeout = 60 * time.Second

// Server starts a throw-away server, "mysql", "pgsql", "redis" or "memcached",
// and returns its host:port when it takes connections. It ends with the test.
func Server(t testing.TB, kind string) string {
	t.Helper()
	Require(t, map[string]string{"mysql": "mariadbd", "pgsql": "pg_lsclusters", "redis": "redis-server", "memcached": "memcached"}[kind])
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = l.Close()
	dir := outside(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := exec.Command(filepath.Join(Root(t), "testdata/servers/run"), kind, dir, port)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// One that the test has stopped takes no other signal.
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		_ = c.Wait()
	})
	for end := time.Now().Add(serverTimeout); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		_ = conn.Close()
		// Some take connections and refuse them while they start.
		if b, _ := os.ReadFile(log.Name()); kind == "memcached" || bytes.Contains(b, []byte(" connections")) {
			return addr
		}
	}
	b, _ := os.ReadFile(log.Name())
	t.Fatalf("%s does not start: %s", kind, b)
	return ""
}
