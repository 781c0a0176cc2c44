package proc

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxFDs bounds the open files that are looked at of one process,
	// maxFDsScanned those of all, and scanTime the search over all processes.
	maxFDs        = 4096
	maxFDsScanned = 200_000
	scanTime      = 300 * time.Millisecond
	// maxFDInfo bounds what is read of one /proc/PID/fdinfo/FD, in bytes; usualFDInfo
	// is enough for most.
	maxFDInfo, usualFDInfo = 64 << 10, 1 << 10
)

// FDs lists the numbers of the process's open files, at most maxFDs.
func (p *Process) FDs() ([]int, error) {
	fds, err := listFDs(p.PID)
	if err != nil {
		return nil, p.fail("list the open files", err)
	}
	return fds, nil
}

func listFDs(pid int) ([]int, error) {
	d, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxFDs)
	fds := make([]int, 0, len(names))
	for _, n := range names {
		if fd, err := strconv.Atoi(n); err == nil {
			fds = append(fds, fd)
		}
	}
	if len(fds) > 0 {
		err = nil
	}
	slices.Sort(fds)
	return fds, err
}

// fdInfo is what /proc/PID/fdinfo/FD says.
type fdInfo struct {
	flags int // of open(2)
	mount int
	ino   uint64 // 0 before Linux 5.14
	locks []FileLock
}

func readFDInfo(pid, fd int) (fdInfo, bool) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return fdInfo{}, false
	}
	defer f.Close()
	b := make([]byte, usualFDInfo)
	n, _ := f.Read(b)
	if n == len(b) { // a file with many locks
		b = make([]byte, maxFDInfo)
		n, _ = f.ReadAt(b, 0)
	}
	return parseFDInfo(b[:n]), n > 0
}

func parseFDInfo(b []byte) (out fdInfo) {
	for line := range bytes.Lines(b) {
		name, v, _ := strings.Cut(string(line), ":")
		v = strings.TrimSpace(v)
		switch name {
		case "flags":
			n, _ := strconv.ParseInt(v, 8, 64)
			out.flags = int(n)
		case "mnt_id":
			out.mount, _ = strconv.Atoi(v)
		case "ino":
			out.ino, _ = strconv.ParseUint(v, 10, 64)
		case "lock":
			if l, ok := parseFileLock(v); ok {
				out.locks = append(out.locks, l)
			}
		}
	}
	return out
}

// holds reports whether the open file has a lock on file.
func (i *fdInfo) holds(file string) bool {
	return slices.ContainsFunc(i.locks, func(l FileLock) bool { return l.File == file && !l.Waits })
}

func (i *fdInfo) reads() bool  { return i.flags&unix.O_ACCMODE != unix.O_WRONLY }
func (i *fdInfo) writes() bool { return i.flags&unix.O_ACCMODE != unix.O_RDONLY }

// The kinds of open files. Sockets are told apart by whoever looks at them.
const (
	FDPipe   = "pipe"
	FDFIFO   = "fifo" // a pipe with a name
	FDSocket = "socket"
	FDFile   = "file"
	FDTTY    = "tty"
	FDDevice = "device"
	FDOther  = "other" // a folder, an eventfd, …
)

// File is an open file of a process.
type File struct {
	FD   int
	Kind string
	Path string // where it was opened, also "pipe:[4711]"
}

// File looks at one of the process's open files.
func (p *Process) File(fd int) (File, error) {
	link, err := os.Readlink(p.path(fmt.Sprintf("fd/%d", fd)))
	if err != nil {
		return File{}, p.fail(fmt.Sprintf("look at open file %d", fd), err)
	}
	f := File{FD: fd, Path: link, Kind: FDOther}
	switch {
	case strings.HasPrefix(link, "pipe:["):
		f.Kind = FDPipe
		return f, nil
	case strings.HasPrefix(link, "socket:["):
		f.Kind = FDSocket
		return f, nil
	}
	if st, err := statFD(p.PID, fd); err == nil {
		f.Kind = kindOf(uint32(st.Mode), link)
	}
	return f, nil
}

func kindOf(mode uint32, path string) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return FDFIFO
	case unix.S_IFREG:
		return FDFile
	case unix.S_IFCHR:
		if strings.HasPrefix(path, "/dev/pts/") || strings.HasPrefix(path, "/dev/tty") {
			return FDTTY
		}
		return FDDevice
	case unix.S_IFBLK:
		return FDDevice
	}
	return FDOther
}

// resolveCached is openat2(2)'s RESOLVE_CACHED, since Linux 5.12
// (include/uapi/linux/openat2.h).
const resolveCached = 0x20

// KindAt is the kind of the file that a path leads to for the process. It
// answers from what the kernel has in memory, because a file server that does
// not answer may be why the process hangs.
func (p *Process) KindAt(name string) (string, bool) {
	at := "root"
	if !strings.HasPrefix(name, "/") {
		at = "cwd"
	}
	dir, err := unix.Open(p.path(at), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer func() { _ = unix.Close(dir) }()
	resolve := uint64(unix.RESOLVE_NO_MAGICLINKS | resolveCached)
	if at == "root" {
		resolve |= unix.RESOLVE_IN_ROOT
	} else {
		resolve |= unix.RESOLVE_BENEATH
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
	if err != nil {
		return "", false
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return "", false
	}
	return kindOf(uint32(st.Mode), name), true
}

// OpenFile is an open file of some process.
type OpenFile struct {
	PID, FD int
}

// OtherEnds finds who has the other end of a pipe open that is one of the
// process's files: its readers where the process writes, else its writers. The
// process's relatives are looked at first; the search over all others has an
// end (scanTime), so that an empty list is not that there is nobody.
func (p *Process) OtherEnds(fd int, write bool) []Holder {
	link, err := os.Readlink(p.path(fmt.Sprintf("fd/%d", fd)))
	if err != nil {
		return nil
	}
	var out []Holder
	own := false
	seen := make(map[int]bool)
	for _, e := range openAs(func(l string) bool { return l == link }, p.relatives()) {
		if seen[e.PID] {
			continue
		}
		info, ok := readFDInfo(e.PID, e.FD)
		if !ok || write && !info.reads() || !write && !info.writes() {
			continue
		}
		seen[e.PID] = true
		if e.PID == p.PID {
			own = true
			continue
		}
		out = append(out, NewHolder(e.PID))
	}
	if len(out) == 0 && own { // it waits for itself
		out = append(out, NewHolder(p.PID))
	}
	return out
}

// relatives are the process's descendants, the nearest first, its parent and itself.
func (p *Process) relatives() []int {
	out := p.Children()
	for i := 0; i < len(out) && len(out) < maxChildren; i++ {
		out = append(out, childrenOf(out[i])...)
	}
	if parent, err := p.Parent(); err == nil {
		out = append(out, parent)
	}
	return append(out, p.PID)
}

// Parent is the pid of the process's parent, 0 for one outside this pid namespace.
func (p *Process) Parent() (int, error) {
	st, err := p.fs.Stat()
	if err != nil {
		return 0, p.fail("look up the parent", err)
	}
	return st.PPID, nil
}

// maxChildren bounds the descendants that are looked at.
const maxChildren = 256

// Children are the processes that this one has started and not yet waited for,
// zombies among them; at most maxChildren.
func (p *Process) Children() []int { return childrenOf(p.PID) }

func childrenOf(pid int) (out []int) {
	tasks, err := filepathTasks(pid)
	if err != nil {
		return nil
	}
	for _, tid := range tasks {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, tid))
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil && len(out) < maxChildren {
				out = append(out, n)
			}
		}
	}
	return out
}

func filepathTasks(pid int) ([]string, error) {
	d, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(maxFDs)
}

// openBy finds the processes but one that have a file of this name open,
// wherever it is.
func openBy(base string, but int) []OpenFile {
	base = strings.TrimSuffix(base, " (deleted)")
	found := openAs(func(l string) bool { return strings.TrimSuffix(path.Base(l), " (deleted)") == base }, nil)
	return slices.DeleteFunc(found, func(o OpenFile) bool { return o.PID == but })
}

// openAs finds open files by what /proc/PID/fd/FD points to: of the processes
// first, and if they have none but the last one's own, of all.
func openAs(match func(link string) bool, first []int) []OpenFile {
	s := scan{match: match, until: time.Now().Add(scanTime)}
	for _, pid := range first {
		s.process(pid)
	}
	if n := len(s.found); n > 0 && slices.ContainsFunc(s.found, func(o OpenFile) bool { return o.PID != first[len(first)-1] }) {
		return s.found
	}
	d, err := os.Open("/proc")
	if err != nil {
		return s.found
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil || slices.Contains(first, pid) {
			continue
		}
		if !s.process(pid) {
			break
		}
	}
	return s.found
}

// scan is a search over the open files of processes.
type scan struct {
	match func(string) bool
	until time.Time
	fds   int
	found []OpenFile
}

// process looks at one process; false says that the search is over.
func (s *scan) process(pid int) bool {
	fds, err := listFDs(pid)
	if err != nil {
		return true // it has ended, or is another user's
	}
	for _, fd := range fds {
		if s.fds++; s.fds > maxFDsScanned || s.fds%64 == 0 && time.Now().After(s.until) {
			return false
		}
		if link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err == nil && s.match(link) {
			s.found = append(s.found, OpenFile{pid, fd})
		}
	}
	return true
}
