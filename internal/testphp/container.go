package testphp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Container is a program that runs in namespaces of its own, started by
// testdata/containers/box.c.
type Container struct {
	PID    int    // of its first process, in our pid namespace
	Root   string // its files, as we reach them
	Worker *Worker
	box    string
}

// Isolation says what a Container has of its own, besides mounts and pids.
type Isolation struct {
	Name   string
	User   bool // users: its root is 100000 outside
	Chroot bool // no root of mounts, but a chroot among ours
	UID    int  // whom the program runs as, 0: root
}

// Isolations are the kinds there are.
var Isolations = []Isolation{
	{Name: "mount and pid namespaces"},
	{Name: "a user namespace, too", User: true},
	{Name: "a chroot", Chroot: true},
	{Name: "a chroot in a user namespace", User: true, Chroot: true},
}

// StartContainer starts argv, which prints "ready", as pid 1 of a container on
// an overlayfs over the given trees, the first one on top.
func StartContainer(t testing.TB, is Isolation, trees []string, argv ...string) *Container {
	t.Helper()
	c := &Container{box: box(t)}
	dir := outside(t)
	scratch, pidfile := filepath.Join(dir, "scratch"), filepath.Join(dir, "pid")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := []string{c.box, "run"}
	if is.User {
		cmd = append(cmd, "-u")
	}
	if is.Chroot {
		cmd = append(cmd, "-c")
	}
	cmd = append(cmd, "-g", strconv.Itoa(is.UID), strings.Join(trees, ":"), scratch, pidfile)
	c.Worker = StartCommand(t, append(cmd, argv...)...)
	b, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	if c.PID, err = strconv.Atoi(string(b)); err != nil {
		t.Fatal(err)
	}
	// Its first process takes all others along; its end comes before that of
	// the box, and unmounts everything.
	t.Cleanup(func() {
		_ = syscall.Kill(c.PID, syscall.SIGKILL)
		for end := time.Now().Add(readyTimeout); Alive(c.PID) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	})
	c.Root = fmt.Sprintf("/proc/%d/root", c.PID)
	return c
}

// Beside is a command in the container, with CAP_SYS_PTRACE and nothing else.
// flags are those of "box exec".
func (c *Container) Beside(flags []string, argv ...string) *exec.Cmd {
	args := append([]string{"exec"}, flags...)
	args = append(args, strconv.Itoa(c.PID))
	return exec.Command(c.box, append(args, argv...)...)
}

// Put copies a file of ours into the container.
func (c *Container) Put(t testing.TB, from, to string) {
	t.Helper()
	// By another name first: a file that runs can't be written to, and a
	// package upgrade replaces it, too.
	path := filepath.Join(c.Root, to)
	copyFile(t, from, path+".new")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// outside is a folder that other users can reach, unlike t.TempDir's.
func outside(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "testphp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Tree makes a tree for containers: programs of this machine with the
// libraries that they load, at the same paths, and files, by their paths in the
// tree.
func Tree(t testing.TB, programs []string, files map[string]string) string {
	t.Helper()
	dir := outside(t)
	put := func(from, to string) {
		to = filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		copyFile(t, from, to)
	}
	library := regexp.MustCompile(`(/\S+) \(0x`)
	for _, p := range programs {
		put(p, p)
		out, err := exec.Command(Require(t, "ldd"), p).Output()
		if err != nil {
			t.Fatalf("ldd %s: %v", p, err)
		}
		for _, m := range library.FindAllSubmatch(out, -1) {
			put(string(m[1]), string(m[1]))
		}
	}
	for to, from := range files {
		put(from, to)
	}
	return dir
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, st.Mode().Perm()|0o444)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
}

// box builds testdata/containers/box.c, once for all tests, and skips the test
// where nobody may make containers.
func box(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root's rights, to make namespaces and mounts")
	}
	if out, err := exec.Command(Require(t, "unshare"), "--mount", "--pid", "--fork", "true").CombinedOutput(); err != nil {
		Missing(t, fmt.Sprintf("the right to make namespaces (%v: %s)", err, out))
	}
	source := filepath.Join(Root(t), "testdata", "containers", "box.c")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(Root(t), ".cache", "containers")
	bin := filepath.Join(dir, fmt.Sprintf("box-%.8x", sha256.Sum256(text)))
	if _, err := os.Stat(bin); err == nil {
		return bin
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	made := bin + "." + strconv.Itoa(os.Getpid())
	if out, err := exec.Command(Require(t, "gcc"), "-O1", "-static", "-o", made, source).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	if err := os.Rename(made, bin); err != nil {
		t.Fatal(err)
	}
	return bin
}
