package testphp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Pool is a php-fpm with static workers behind a unix socket.
type Pool struct {
	Master  int
	Workers []int
	Socket  string
}

// FPM starts a php-fpm with n workers. It ends with the test.
func FPM(t testing.TB, fpm string, n int, ini ...string) *Pool {
	t.Helper()
	dir := t.TempDir()
	p := &Pool{Socket: filepath.Join(dir, "s")}
	conf := fmt.Sprintf(`[global]
error_log = %[1]s/log
daemonize = no
[www]
user = root
group = root
listen = %[1]s/s
pm = static
pm.max_children = %[2]d
`, dir, n)
	path := filepath.Join(dir, "fpm.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-n", "-R", "-F", "-y", path, "-p", dir, "-d", "memory_limit=-1"}
	for _, i := range ini {
		args = append(args, "-d", i)
	}
	c := exec.Command(fpm, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL); _ = c.Wait() })
	p.Master = c.Process.Pid
	Eventually(t, "the start of php-fpm", func() bool {
		p.Workers = children(p.Master)
		_, err := os.Stat(p.Socket)
		return err == nil && len(p.Workers) == n
	})
	return p
}

func children(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var out []int
	for _, w := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(w); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// Request sends a FastCGI request for a script and returns the connection, on
// which the answer will come.
func (p *Pool) Request(t testing.TB, script, uri string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", p.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	var params bytes.Buffer
	for _, kv := range [][2]string{
		{"SCRIPT_FILENAME", script}, {"REQUEST_METHOD", "GET"}, {"REQUEST_URI", uri}, {"SCRIPT_NAME", uri},
		{"QUERY_STRING", ""}, {"SERVER_PROTOCOL", "HTTP/1.1"}, {"GATEWAY_INTERFACE", "CGI/1.1"},
	} {
		for _, s := range kv {
			_ = binary.Write(&params, binary.BigEndian, uint32(len(s))|1<<31)
		}
		params.WriteString(kv[0] + kv[1])
	}
	var b bytes.Buffer
	record := func(typ byte, body []byte) {
		b.Write([]byte{1, typ, 0, 1, byte(len(body) >> 8), byte(len(body)), 0, 0})
		b.Write(body)
	}
	record(1, []byte{0, 1, 0, 0, 0, 0, 0, 0}) // begin, responder
	record(4, params.Bytes())
	record(4, nil)
	record(5, nil)
	if _, err := io.Copy(c, &b); err != nil {
		t.Fatal(err)
	}
	return c
}
