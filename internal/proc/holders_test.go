package proc

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/phpwhy/phpwhy/symbolize/remote"
)

func TestALineOfLocksIsRead(t *testing.T) {
	for line, want := range map[string]FileLock{
		"1: FLOCK  ADVISORY  WRITE 812 fe:00:10322521 0 EOF": {ID: "1:", Kind: "FLOCK", PID: 812, Write: true, File: "fe:00:10322521"},
		"12: -> POSIX  ADVISORY  READ  813 00:2f:4711 0 EOF": {ID: "12:", Kind: "POSIX", PID: 813, Waits: true, File: "00:2f:4711"},
		"2:  -> FLOCK  ADVISORY  WRITE 9 fe:00:1 0 EOF":      {ID: "2:", Kind: "FLOCK", PID: 9, Write: true, Waits: true, File: "fe:00:1"},
		"3: OFDLCK ADVISORY  WRITE -1 00:01:5 0 0":           {ID: "3:", Kind: "OFDLCK", PID: HeldByNone, Write: true, File: "00:01:5"},
		"": {}, "1:": {}, "1: ->": {}, "1: FLOCK ADVISORY WRITE": {}, "1: FLOCK ADVISORY WRITE x fe:00:1 0 EOF": {},
	} {
		if got, ok := parseFileLock(line); got != want || ok != (want != FileLock{}) {
			t.Errorf("%q: got %+v, %v", line, got, ok)
		}
	}
}

// shell runs a shell script in a process group of its own, which ends with the test.
func shell(t *testing.T, script string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL); _ = c.Wait() })
	return c
}

// opened waits until a process has a file open and returns the number.
func opened(t *testing.T, p *Process, path string) (fd int) {
	t.Helper()
	waitFor(t, func() bool {
		fds, err := p.FDs()
		for _, n := range fds {
			if f, ferr := p.File(n); err == nil && ferr == nil && f.Path == path {
				fd = n
				return true
			}
		}
		return false
	})
	return fd
}

// holding waits until a lock on a file is held, and returns its line.
func holding(t *testing.T, path string) (l FileLock) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	inode := fmt.Sprint(st.Sys().(*syscall.Stat_t).Ino)
	waitFor(t, func() bool {
		locks, err := FileLocks()
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range locks {
			if strings.HasSuffix(o.File, ":"+inode) && !o.Waits {
				l = o
				return true
			}
		}
		return false
	})
	return l
}

func lockFile(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("flock"); err != nil {
		t.Skip("missing: flock(1)")
	}
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func waiter(t *testing.T, path string) *Process {
	t.Helper()
	c := shell(t, `exec flock "$1" true`, path)
	p, err := Open(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheHolderOfALockIsFound(t *testing.T) {
	path := lockFile(t)
	holder := shell(t, `exec flock --no-fork "$1" sleep 60`, path)
	holding(t, path)
	p := waiter(t, path)
	fd := opened(t, p, path)
	for _, kinds := range [][]string{{"FLOCK"}, nil} {
		hs, err := new(Locks).HoldersFor(p, fd, kinds...)
		if err != nil || len(hs) != 1 || hs[0].PID != holder.Process.Pid || hs[0].Cmdline != "sleep 60" {
			t.Errorf("%v: got %+v, %v, want %d", kinds, hs, err, holder.Process.Pid)
		}
	}
	files, err := new(Locks).LockedFiles(p, "FLOCK")
	if err != nil || len(files) != 1 || files[0].Path != path || len(files[0].Holders) != 1 || files[0].Holders[0].PID != holder.Process.Pid {
		t.Errorf("files that others have locked: %+v, %v", files, err)
	}
	if files, _ := new(Locks).LockedFiles(p, "POSIX"); len(files) != 0 {
		t.Errorf("a lock of another kind: %+v", files)
	}
}

// flock(1) has taken the lock and ended; the sleep has inherited the file.
func TestALockThatAChildInheritedNamesTheChild(t *testing.T) {
	if !strings.Contains(readFile("/proc/2/comm"), "kthreadd") {
		// locks_show in fs/locks.c: whoever took it has no number there any more.
		t.Skip("in a pid namespace of its own, where /proc/locks leaves out what an ended process has locked")
	}
	path := lockFile(t)
	c := shell(t, `exec 9>"$1"; flock 9; sleep 60 & echo $! >"$1.pid"; wait`, path)
	if taker := holding(t, path).PID; taker == c.Process.Pid {
		t.Fatalf("the shell itself took the lock: %d", taker)
	}
	p := waiter(t, path)
	hs, err := new(Locks).HoldersFor(p, opened(t, p, path), "FLOCK")
	if err != nil || len(hs) == 0 {
		t.Fatalf("got %+v, %v", hs, err)
	}
	for _, h := range hs {
		if h.Ended || h.PID != c.Process.Pid && h.Cmdline != "sleep 60" {
			t.Errorf("%s has the lock", h)
		}
	}
}

func TestTheOtherEndOfAPipeIsFound(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	c := exec.Command("cat")
	c.Stdin = r
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	_ = r.Close()
	p, err := Open(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := p.File(0); err != nil || f.Kind != FDPipe {
		t.Errorf("its input is %+v, %v", f, err)
	}
	if hs := p.OtherEnds(0, false); len(hs) != 1 || hs[0].PID != os.Getpid() {
		t.Errorf("writers: %+v, want %d", hs, os.Getpid())
	}
	// Of those who could read it there is none but itself.
	if hs := p.OtherEnds(0, true); len(hs) != 1 || hs[0].PID != p.PID {
		t.Errorf("readers: %+v, want %d", hs, p.PID)
	}
}

func TestTheKindOfAFileIsToldWithoutOpeningIt(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	p := &Process{PID: os.Getpid()}
	for _, name := range []string{fifo, dir + "/link"} {
		_, _ = os.Stat(name) // it has just been looked up
		if kind, ok := p.KindAt(name); kind != FDFIFO || !ok {
			t.Errorf("%s: %q, %v", name, kind, ok)
		}
	}
	if kind, ok := p.KindAt(dir + "/none"); ok {
		t.Errorf("a file that is not there is a %q", kind)
	}
}

func TestTheChildThatIsWaitedForIsFound(t *testing.T) {
	c := shell(t, `sleep 60 & wait`)
	p, err := Open(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		child, ok := p.Child(-1)
		return ok && child.Cmdline == "sleep 60" && child.State == "S"
	})
	any, _ := p.Child(-1)
	if child, ok := p.Child(any.PID); !ok || child != any || child.State != "S" {
		t.Errorf("got %+v, want %+v", child, any)
	}
	if child, ok := p.Child(os.Getpid()); ok {
		t.Errorf("its parent is no child: %+v", child)
	}
	if parent, err := p.Parent(); err != nil || parent != os.Getpid() {
		t.Errorf("parent %d, %v", parent, err)
	}
}

func TestTheOwnerOfALockIsReadFromMemory(t *testing.T) {
	p, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const lock = remote.Addr(0x1000)
	memory := func(words map[remote.Addr]uint32) remote.Reader {
		return remote.ReaderFunc(func(b []byte, at remote.Addr) (int, error) {
			if len(b) != 4 || at < lock || at >= lock+64 {
				return 0, &remote.ReadError{At: at, Want: len(b), Err: remote.ErrUnmapped}
			}
			binary.LittleEndian.PutUint32(b, words[at])
			return 4, nil
		})
	}
	own := uint32(os.Getpid())
	for name, tt := range map[string]struct {
		words map[remote.Addr]uint32
		word  remote.Addr
		found bool
	}{
		"a mutex":                          {map[remote.Addr]uint32{lock: 2, lock + 8: own}, lock, true},
		"a writer, waited for by a writer": {map[remote.Addr]uint32{lock + 12: 3, lock + 24: own}, lock + 12, true},
		"a writer, waited for by a reader": {map[remote.Addr]uint32{lock + 8: 2, lock + 24: own}, lock + 8, true},
		"the kernel's own lock":            {map[remote.Addr]uint32{lock: own | 0x80000000}, lock, true},
		"readers":                          {map[remote.Addr]uint32{lock: 9, lock + 8: 2}, lock + 8, false},
		"a number that no thread has":      {map[remote.Addr]uint32{lock: 2, lock + 8: 1 << 29}, lock, false},
		"unreadable":                       {nil, 0x9000, false},
	} {
		h, ok := p.FutexOwner(memory(tt.words), tt.word)
		if ok != tt.found || ok && h.PID != p.PID {
			t.Errorf("%s: %+v, %v", name, h, ok)
		}
	}
}
