package builtin_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/testphp"
)

// Workers that wait. Most need somebody to wait for: a second worker, a web
// server that does not read, a lock in other hands.
var waiting = []hang{
	{rule: "lock.session-file", at: `session_start(`, start: twoRequests},
	{rule: "lock.session-redis", at: `session_start(`, start: redisSession, long: true},
	{rule: "lock.flock", at: `flock($file`, start: two(nil)},
	{rule: "lock.sysvsem", at: `sem_acquire(`, start: two(extension("-d", "extension=sysvsem"))},
	{rule: "lock.sqlite-busy", at: `BEGIN EXCLUSIVE`, start: two(extension("-d", "extension=sqlite3")), long: true},
	{rule: "lock.opcache", at: `include "$dir`, start: opcacheLocked},
	{rule: "lock.apcu", at: `apcu_store(`, args: extension("-d", "extension=apcu", "-d", "apc.enable_cli=1"), long: true},
	{rule: "lock.apcu", label: "dead holder", script: "lock.apcu-dead", at: `apcu_store(`,
		args: extension("-d", "extension=apcu", "-d", "apc.enable_cli=1"), long: true},
	{rule: "wait.child-process", at: `shell_exec(`},
	{rule: "wait.child-process", label: "proc_close", script: "proc_close", at: `proc_close(`},
	{rule: "wait.child-process", label: "mail", script: "wait.mail", at: `mail('shop`, args: sendmail},
	{rule: "wait.child-process", label: "write", script: "wait.popen-write", at: `fwrite(`},
	{rule: "wait.client-write", at: `echo str_repeat(`, start: request},
	{rule: "wait.client-upload", at: `php://input`, start: upload},
	{rule: "wait.client-upload", label: "before the script", start: uploadFirst},
	{rule: "wait.sleep", label: "request", script: "wait.sleep", at: `sleep(600`},
	{rule: "wait.sleep", label: "shutdown function", script: "wait.sleep-shutdown", at: `sleep(600`},
	{rule: "wait.sleep", label: "destructor", script: "wait.sleep-destructor", at: `usleep(600`},
	{rule: "wait.sleep", label: "autoloader", script: "wait.sleep-autoload", at: `sleep(600`},
	{rule: "wait.fifo-open", at: `fopen(`, start: fifo},
	{rule: "wait.stdin-read", at: `fgets(STDIN`, start: stdin},
	{rule: "wait.fpm-stderr-pipe", at: `fwrite($log`, start: fullPipe},
}

// sendmail is one that does not end.
func sendmail(php) ([]string, bool) { return []string{"-d", "sendmail_path=sleep 60"}, true }

// cannot is the pid of a worker that this build can't be made to hang.
const cannot = 0

// shared makes a folder for what workers wait for, and tells them where it is.
func shared(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("PHPWHY_HANG", dir)
	return dir
}

func options(p php, args func(php) ([]string, bool)) ([]string, bool) {
	if args == nil {
		return nil, true
	}
	return args(p)
}

// script is that of the hang's rule, which the test is named after.
func script(t *testing.T) string {
	_, rest, _ := strings.Cut(t.Name(), "/")
	rule, _, _ := strings.Cut(rest, "/")
	rule, _, _ = strings.Cut(rule, "_")
	return testphp.Hang(t, rule+".php")
}

// two starts the script twice and returns the second worker.
func two(args func(php) ([]string, bool)) func(*testing.T, php) int {
	return func(t *testing.T, p php) int {
		opts, ok := options(p, args)
		if !ok {
			return cannot
		}
		shared(t)
		testphp.Start(t, p.bin, script(t), opts...)
		time.Sleep(settled)
		t.Cleanup(func() { removeSemaphore(p, opts) })
		return testphp.Start(t, p.bin, script(t), opts...).PID
	}
}

// removeSemaphore removes what lock.sysvsem.php leaves behind.
func removeSemaphore(p php, opts []string) {
	code := `function_exists("sem_get") && sem_remove(sem_get(crc32(getenv("PHPWHY_HANG"))));`
	_ = exec.Command(p.bin, append(append([]string{"-n"}, opts...), "-r", code)...).Run()
}

func pool(t *testing.T, p php, workers int, lines ...string) *testphp.Pool {
	t.Helper()
	if _, err := os.Stat(p.fpm); err != nil {
		testphp.Missing(t, p.fpm)
	}
	return testphp.FPMWith(t, p.fpm, workers, lines...)
}

// twoRequests sends two requests of one session.
func twoRequests(t *testing.T, p php) int {
	if !p.stripped() { // no session extension
		return cannot
	}
	dir := shared(t)
	f := pool(t, p, 2, "php_admin_value[session.save_path] = "+dir,
		"php_admin_value[session.use_cookies] = 0", "php_admin_value[session.cache_limiter] =")
	f.Hang(t, script(t), "")
	time.Sleep(settled)
	return f.Hang(t, script(t), "")
}

func redisSession(t *testing.T, p php) int {
	if !p.stripped() {
		return cannot
	}
	// redis-server is this program under another name; its own package starts one.
	server := testphp.Require(t, "redis-check-rdb")
	dir := shared(t)
	sock, err := os.MkdirTemp("", "redis") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(server, "--port", "0", "--unixsocket", sock+"/s", "--save", "", "--dir", dir)
	c.Args[0] = "redis-server"
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait(); os.RemoveAll(sock) })
	exists(t, sock+"/s")
	opts := []string{"-d", "extension=igbinary", "-d", "extension=redis", "-d", "session.save_handler=redis", "-d", "session.save_path=unix://" + sock + "/s",
		"-d", "redis.session.locking_enabled=1", "-d", "redis.session.lock_retries=-1", "-d", "redis.session.lock_expire=600",
		"-d", "session.use_cookies=0", "-d", "session.cache_limiter="}
	testphp.Start(t, p.bin, script(t), opts...)
	time.Sleep(settled)
	return testphp.Start(t, p.bin, script(t), opts...).PID
}

func exists(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			return
		}
	}
	t.Fatalf("%s does not appear", name)
}

// opcacheLocked takes the lock of a worker's opcache through /proc.
func opcacheLocked(t *testing.T, p php) int {
	opts, ok := opcache(p)
	if !ok {
		return cannot
	}
	opts = append(opts, "-d", "opcache.file_update_protection=0") // page.php is new
	dir := shared(t)
	if err := os.WriteFile(dir+"/page.php", []byte("<?php\necho 'page';\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := testphp.Start(t, p.bin, script(t), opts...)
	lock := openLock(t, w.PID)
	t.Cleanup(func() { _ = lock.Close() })
	// The byte 0, for writing, as zend_shared_alloc_lock() asks for it.
	fl := syscall.Flock_t{Type: syscall.F_WRLCK, Start: 0, Len: 1}
	if err := syscall.FcntlFlock(lock.Fd(), syscall.F_SETLK, &fl); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/locked", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return w.PID
}

// openLock opens the file that opcache locks.
func openLock(t *testing.T, pid int) *os.File {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil || !strings.Contains(to, "opcache_lock") && !strings.Contains(to, ".ZendSem.") {
			continue
		}
		f, err := os.OpenFile(l, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	t.Fatalf("process %d has no file for opcache's lock", pid)
	return nil
}

// request sends a request and reads no more than the first line of the response.
func request(t *testing.T, p php) int {
	return pool(t, p, 1).Hang(t, script(t), "")
}

func upload(t *testing.T, p php) int {
	return pool(t, p, 1, "php_admin_value[enable_post_data_reading] = 0").Upload(t, script(t), 1<<20)
}

// uploadFirst is a request whose body PHP reads before it runs the script.
func uploadFirst(t *testing.T, p php) int {
	f := pool(t, p, 1)
	f.UploadFirst(t, testphp.Hang(t, "wait.client-upload.php"), 1<<20)
	return f.Workers[0]
}

func fifo(t *testing.T, p php) int {
	if err := syscall.Mkfifo(shared(t)+"/queue", 0o600); err != nil {
		t.Fatal(err)
	}
	return testphp.Start(t, p.bin, script(t)).PID
}

// stdin gives the worker a pipe into which this process writes nothing.
func stdin(t *testing.T, p php) int {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return testphp.StartReading(t, r, p.bin, "-n", script(t)).PID
}

// fullPipe stops a php-fpm that reads what its workers write to stderr.
func fullPipe(t *testing.T, p php) int {
	f := pool(t, p, 1, "catch_workers_output = yes")
	if err := syscall.Kill(f.Master, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return f.Hang(t, script(t), "")
}

// recorded are the builds that captures are from.
func recorded(t *testing.T) []php {
	dir := func(v string) string { return filepath.Join(testphp.Root(t), ".cache/php", v+"-nts") }
	return []php{
		{"8.2 stripped", testphp.Stripped(t), "/usr/sbin/php-fpm8.2"},
		{"8.2", dir("8.2") + "/bin/php", dir("8.2") + "/sbin/php-fpm"},
		{"8.4", dir("8.4") + "/bin/php", dir("8.4") + "/sbin/php-fpm"},
	}
}

// Writes the captures of captures/record to the folder in PHPWHY_RECORD_WAITS,
// with the phpwhy in PHPWHY.
func TestTheWaitsAreRecorded(t *testing.T) {
	dir, phpwhy := os.Getenv("PHPWHY_RECORD_WAITS"), os.Getenv("PHPWHY")
	if dir == "" {
		t.Skip("captures/record asks for it")
	}
	had := make(map[string]bool)
	for _, h := range waiting {
		for _, p := range recorded(t) {
			t.Run(h.name()+"/"+p.name, func(t *testing.T) {
				_, name, _ := strings.Cut(h.rule, ".")
				if h.label != "" {
					name += "-" + strings.ReplaceAll(h.label, " ", "-")
				}
				// Of the unstripped ones, the first that can hang this way.
				if !p.stripped() && had[name] || !wanted(name) {
					return
				}
				pid := h.begin(t, p)
				if pid == cannot {
					return
				}
				had[name] = !p.stripped()
				build := strings.ReplaceAll(p.name, " ", "-")
				if !p.stripped() {
					build += "-dwarf"
				}
				out := filepath.Join(dir, name+"-"+build+".jsonl")
				if b, err := exec.Command(phpwhy, "attach", "--for", "1s", "--capture", out, fmt.Sprint(pid)).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, b)
				} else {
					first, _, _ := strings.Cut(string(b), "\n")
					t.Log(first)
				}
			})
		}
	}
}

// wanted reports whether captures of this name are to be recorded.
func wanted(name string) bool {
	names := strings.Fields(os.Getenv("PHPWHY_RECORD_NAMES"))
	for _, n := range names {
		if strings.HasPrefix(name, n) {
			return true
		}
	}
	return len(names) == 0
}
