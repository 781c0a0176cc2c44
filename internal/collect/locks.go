package collect

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/stack"
)

const (
	// maxLocks bounds the lines of /proc/locks that are read: those of all
	// processes of the host.
	maxLocks = 200_000
	// maxFDs bounds the open files of one worker that are searched for the file
	// that it waits for.
	maxFDs = 4096
)

// locks are the file locks of the host that somebody waits for. They are read
// once per round: it would take longer to read them for every worker.
type locks struct {
	waits map[int]lock // by the pid that waits
}

type lock struct {
	kind   string // flock or fcntl
	file   string // device and inode, as /proc/locks writes them
	holder int    // 0: unknown, as of a lock that belongs to an open file
}

func readLocks() locks {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return locks{}
	}
	defer f.Close()
	return parseLocks(bufio.NewScanner(f))
}

// parseLocks reads the lines (fs/locks.c, lock_get_status):
//
//	1: FLOCK  ADVISORY  WRITE 812 fe:00:10322521 0 EOF
//	1: -> FLOCK  ADVISORY  WRITE 813 fe:00:10322521 0 EOF
func parseLocks(sc *bufio.Scanner) locks {
	l := locks{waits: make(map[int]lock)}
	held := make(map[string]int)
	for n := 0; n < maxLocks && sc.Scan(); n++ {
		f := strings.Fields(sc.Text())
		if len(f) < 6 {
			continue
		}
		id, waits := f[0], f[1] == "->"
		if f = f[1:]; waits {
			f = f[1:]
		}
		if len(f) < 5 {
			continue
		}
		pid, err := strconv.Atoi(f[3])
		if err != nil {
			continue
		}
		if !waits {
			held[id] = max(0, pid) // -1: it belongs to an open file
			continue
		}
		kind := "fcntl"
		if f[0] == "FLOCK" {
			kind = "flock"
		}
		l.waits[pid] = lock{kind: kind, file: f[4], holder: held[id]}
	}
	return l
}

// into adds who holds the lock that a worker waits for, where the look did not
// find that out itself and its stack ends in the call that waits.
func (l locks) into(pid int, c *capture.Capture) {
	w, ok := l.waits[pid]
	if !ok || c.Facts["lock.kind"] != nil || !locking(c, w.kind) {
		return
	}
	if c.Facts == nil {
		c.Facts = make(map[string]any)
	}
	c.Facts["lock.kind"] = w.kind
	if w.holder > 0 {
		c.Facts["lock.holder_pid"] = int64(w.holder)
	}
	if p := openPath(pid, w.file); p != "" {
		c.Facts["lock.path"] = p
	}
}

// locking reports whether the innermost native frames are in the lock's call.
func locking(c *capture.Capture, kind string) bool {
	const innermost = 3
	for i := range c.Stacks {
		fs := c.Stacks[i].Frames
		for j := range min(innermost, len(fs)) {
			if f := &fs[j]; f.Kind == stack.Native && strings.Contains(f.Function, kind) {
				return true
			}
		}
	}
	return false
}

// openPath finds the path of an open file by its number in /proc/locks.
func openPath(pid int, file string) string {
	parts := strings.Split(file, ":") // major, minor, inode
	if len(parts) != 3 {
		return ""
	}
	ino := parts[2]
	dir := fmt.Sprintf("/proc/%d/", pid)
	fds, err := os.ReadDir(dir + "fdinfo")
	if err != nil {
		return ""
	}
	for _, fd := range fds[:min(len(fds), maxFDs)] {
		b, err := os.ReadFile(dir + "fdinfo/" + fd.Name())
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "ino:"); ok && strings.TrimSpace(v) == ino {
				if p, err := os.Readlink(dir + "fd/" + fd.Name()); err == nil && strings.HasPrefix(p, "/") {
					return p
				}
			}
		}
	}
	return ""
}
