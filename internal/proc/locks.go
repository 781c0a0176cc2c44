package proc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxLockLines bounds what is read of /proc/locks, which lists the locks of all
// processes of the host.
const maxLockLines = 200_000

// ErrTooManyLocks says that /proc/locks was not read to its end.
var ErrTooManyLocks = errors.New("/proc/locks has too many lines; who holds a lock was not looked for to the end")

// FileLock is a lock on a file, as /proc/locks has it.
type FileLock struct {
	ID   string // what a lock and those who wait for it share
	Kind string // FLOCK, POSIX or OFDLCK
	// PID is the process that took it. It is -1 for OFDLCK, and may have ended
	// when a child inherited the file.
	PID   int
	Write bool
	Waits bool   // it is not held, but waited for
	File  string // device and inode, "fe:00:4711"
}

// HeldByNone is the pid of a lock that belongs to an open file rather than to
// a process.
const HeldByNone = -1

// parseFileLock reads a line of /proc/locks (fs/locks.c, lock_get_status):
//
//	1: FLOCK  ADVISORY  WRITE 812 fe:00:10322521 0 EOF
//	1: -> FLOCK  ADVISORY  WRITE 813 fe:00:10322521 0 EOF
func parseFileLock(line string) (FileLock, bool) {
	f := strings.Fields(line)
	if len(f) < 6 {
		return FileLock{}, false
	}
	l := FileLock{ID: f[0]}
	f = f[1:]
	for len(f) > 0 && f[0] == "->" {
		l.Waits = true
		f = f[1:]
	}
	if len(f) < 5 {
		return FileLock{}, false
	}
	pid, err := strconv.Atoi(f[3])
	if err != nil {
		return FileLock{}, false
	}
	l.Kind, l.Write, l.PID, l.File = f[0], f[2] == "WRITE" || f[2] == "RW", pid, f[4]
	return l, true
}

// readFileLocks reads lines such as those of /proc/locks.
func readFileLocks(r io.Reader) ([]FileLock, error) {
	var out []FileLock
	sc := bufio.NewScanner(r)
	for n := 0; sc.Scan(); n++ {
		if n == maxLockLines {
			return out, ErrTooManyLocks
		}
		if l, ok := parseFileLock(sc.Text()); ok {
			out = append(out, l)
		}
	}
	return out, sc.Err()
}

// FileLocks reads /proc/locks. Locks of processes that this one's pid namespace
// does not show are not in it.
func FileLocks() ([]FileLock, error) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readFileLocks(f)
}

// blockers are the held locks that the process waits for by its own line in
// locks, which needs no comparison of files.
func blockers(locks []FileLock, pid int, kinds ...string) []FileLock {
	var out []FileLock
	for i := range locks {
		w := &locks[i]
		if !w.Waits || w.PID != pid || !oneOf(w.Kind, kinds) {
			continue
		}
		for j := range locks {
			if l := &locks[j]; l.ID == w.ID && !l.Waits {
				out = append(out, *l)
			}
		}
	}
	return out
}

func oneOf(s string, of []string) bool {
	for _, o := range of {
		if s == o {
			return true
		}
	}
	return len(of) == 0
}

// Holder is a process that has what another waits for.
type Holder struct {
	PID     int // 0: there is one, but it can't be seen from here
	Cmdline string
	Ended   bool // the process that took it is gone
	Stopped bool // by a signal: it gives nothing back before it is continued
}

// String names it for people: "pid 812 (php-fpm: pool www)".
func (h Holder) String() string {
	switch {
	case h.PID == 0:
		return "a process that can't be seen from here"
	case h.Ended:
		return fmt.Sprintf("pid %d (it has ended)", h.PID)
	}
	s := fmt.Sprintf("pid %d", h.PID)
	if h.Cmdline != "" {
		s += fmt.Sprintf(" (%s)", h.Cmdline)
	}
	if h.Stopped {
		s += ", stopped by a signal"
	}
	return s
}

// maxCmdline bounds a command line that is shown beside a pid, in bytes.
const maxCmdline = 120

// NewHolder looks up the command line of a process.
func NewHolder(pid int) Holder {
	if pid <= 0 {
		return Holder{}
	}
	h := Holder{PID: pid, Cmdline: ShortCmdline(pid)}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(err, os.ErrNotExist) {
		h.Ended = true
	}
	if t, err := ReadTimes(pid); err == nil {
		h.Stopped = t.State == 'T'
	}
	return h
}

// ShortCmdline is the command line of any process, cut after some length; of one
// that has none, such as a zombie, its name.
func ShortCmdline(pid int) string {
	s := (&Process{PID: pid}).Cmdline()
	if s == "" {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
			s = strings.TrimSpace(string(b))
		}
	}
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxCmdline {
		s = strings.ToValidUTF8(s[:maxCmdline], "") + "…"
	}
	return s
}

// lockAge is how old the list of locks may be that many processes share.
const lockAge = 50 * time.Millisecond

// Locks is the list of file locks for whoever asks about one process after the
// other. It is read anew when it is older than a moment, and is safe for
// concurrent use.
type Locks struct {
	mu   sync.Mutex
	at   time.Time
	list []FileLock
	err  error
	// held are the processes behind locks of the list that were looked up.
	held map[FileLock][]Holder
}

// read returns the list, and whether it was read just now.
func (t *Locks) read(anew bool) ([]FileLock, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !anew && time.Since(t.at) < lockAge {
		return t.list, false, t.err
	}
	t.list, t.err = FileLocks()
	t.at, t.held = time.Now(), make(map[FileLock][]Holder)
	return t.list, true, t.err
}

// WaitedFor is the lock that a process waits for by its own line in /proc/locks, and how
// many wait for it, this one among them. The ID is left out: it is the line's number.
func (t *Locks) WaitedFor(pid int, kinds ...string) (l FileLock, waiters int, ok bool) {
	for try := range waitedForTries {
		// Whoever was stopped a moment ago has to ask again.
		if try > 0 {
			time.Sleep(time.Millisecond)
		}
		locks, _, err := t.read(try > 0)
		held := blockers(locks, pid, kinds...)
		if err != nil || len(held) == 0 {
			continue
		}
		l = held[0]
		for i := range locks {
			if locks[i].Waits && locks[i].ID == l.ID {
				waiters++
			}
		}
		l.ID = ""
		return l, waiters, true
	}
	return FileLock{}, 0, false
}

// waitedForTries bounds how often the list is read for the line of one process.
const waitedForTries = 4

// owners names the processes behind locks, each once.
func (t *Locks) owners(p *Process, held []FileLock, fd int) []Holder {
	var out []Holder
	for _, l := range held {
		t.mu.Lock()
		hs, known := t.held[l]
		t.mu.Unlock()
		if !known {
			hs = p.owners(l, fd)
			t.mu.Lock()
			t.held[l] = hs
			t.mu.Unlock()
		}
		for _, h := range hs {
			if !slices.ContainsFunc(out, func(o Holder) bool { return o.PID == h.PID }) {
				out = append(out, h)
			}
		}
	}
	return out
}

// HoldersFor finds who holds the lock on one of the process's open files that
// it waits for. kinds are of FLOCK, POSIX and OFDLCK. An empty list means that
// nobody was found, which is not that there is nobody.
func (t *Locks) HoldersFor(p *Process, fd int, kinds ...string) ([]Holder, error) {
	locks, anew, err := t.read(false)
	out := t.holdersIn(p, locks, fd, kinds)
	if len(out) == 0 && !anew {
		locks, _, err = t.read(true)
		out = t.holdersIn(p, locks, fd, kinds)
	}
	if len(out) > 0 {
		return out, nil
	}
	return nil, err
}

func (t *Locks) holdersIn(p *Process, locks []FileLock, fd int, kinds []string) []Holder {
	held := blockers(locks, p.PID, kinds...)
	if info, ok := readFDInfo(p.PID, fd); ok && info.ino != 0 {
		// It may have waited for another file when the list was read.
		inode := ":" + strconv.FormatUint(info.ino, 10)
		held = slices.DeleteFunc(held, func(l FileLock) bool { return !strings.HasSuffix(l.File, inode) })
	}
	if len(held) == 0 {
		// Its own line is not there in the moment in which it asks again.
		held = p.foreign(locks, fd, kinds)
	}
	return t.owners(p, held, fd)
}

// foreign are the locks of others on one of the process's open files.
func (p *Process) foreign(locks []FileLock, fd int, kinds []string) []FileLock {
	id, ok := p.fileID(fd)
	if !ok {
		return nil
	}
	var out []FileLock
	for _, l := range locks {
		if l.File == id && !l.Waits && l.PID != p.PID && oneOf(l.Kind, kinds) {
			out = append(out, l)
		}
	}
	return out
}

// owners names the processes behind a lock on the open file fd. One that took it
// and left it to a child is not among them, the child is.
func (p *Process) owners(l FileLock, fd int) []Holder {
	// A lock of flock(2) belongs to the open file, which its taker may have left to
	// a child.
	if l.PID > 0 && (l.Kind != "FLOCK" || hasLock(l.PID, l.File)) {
		return []Holder{NewHolder(l.PID)}
	}
	link, err := os.Readlink(p.path(fmt.Sprintf("fd/%d", fd)))
	if err != nil {
		return nil
	}
	var out []Holder
	for _, e := range openBy(path.Base(link), p.PID) {
		if info, ok := readFDInfo(e.PID, e.FD); ok && info.holds(l.File) {
			out = append(out, NewHolder(e.PID))
		}
	}
	if len(out) == 0 && l.PID > 0 {
		return []Holder{NewHolder(l.PID)}
	}
	return out
}

// hasLock reports whether one of a process's open files has a lock on file.
func hasLock(pid int, file string) bool {
	fds, err := listFDs(pid)
	if err != nil {
		return errors.Is(err, os.ErrPermission) // it can't be told that it has not
	}
	for _, fd := range fds {
		if info, ok := readFDInfo(pid, fd); ok && info.holds(file) {
			return true
		}
	}
	return false
}

// LockedFile is an open file of a process that another process has locked.
type LockedFile struct {
	FD      int
	Path    string
	Holders []Holder
}

// LockedFiles are a process's open files on which somebody else holds a lock
// for writing of one of the kinds: what a library waits for that asks again
// and again rather than blocking.
func (t *Locks) LockedFiles(p *Process, kinds ...string) ([]LockedFile, error) {
	locks, _, err := t.read(false)
	if len(locks) == 0 {
		return nil, err
	}
	locked := make(map[string][]FileLock)
	for _, l := range locks {
		if l.Write && !l.Waits && l.PID != p.PID && oneOf(l.Kind, kinds) {
			locked[l.File] = append(locked[l.File], l)
		}
	}
	if len(locked) == 0 {
		return nil, err
	}
	fds, ferr := p.FDs()
	if ferr != nil {
		return nil, ferr
	}
	var out []LockedFile
	for _, fd := range fds {
		id, ok := p.fileID(fd)
		if !ok || len(locked[id]) == 0 {
			continue
		}
		path, err := os.Readlink(p.path(fmt.Sprintf("fd/%d", fd)))
		if err != nil {
			continue
		}
		out = append(out, LockedFile{FD: fd, Path: path, Holders: t.owners(p, locked[id], fd)})
	}
	return out, err
}

// fileID is an open file's device and inode as /proc/locks writes them, which
// on overlayfs and btrfs are not those of stat(2).
func (p *Process) fileID(fd int) (string, bool) {
	info, ok := readFDInfo(p.PID, fd)
	if !ok {
		return "", false
	}
	st, err := statFD(p.PID, fd)
	if err != nil {
		return "", false
	}
	ino := info.ino
	if ino == 0 { // before Linux 5.14
		ino = st.Ino
	}
	if dev, ok := p.superblock(info.mount); ok {
		return dev + ":" + strconv.FormatUint(ino, 10), true
	}
	return fmt.Sprintf("%02x:%02x:%d", st.Dev_major, st.Dev_minor, ino), true
}

// superblock is the device of the file system that is mounted as id in the
// process's namespace, in hexadecimal.
func (p *Process) superblock(id int) (string, bool) {
	b, err := os.ReadFile(p.path("mountinfo"))
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != strconv.Itoa(id) {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(f[2], "%d:%d", &major, &minor); err != nil {
			return "", false
		}
		return fmt.Sprintf("%02x:%02x", major, minor), true
	}
	return "", false // a memfd: no mount of this namespace
}

// statFD looks at an open file of any process. It asks nobody: a server that
// does not answer may be why the process hangs.
func statFD(pid, fd int) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, fmt.Sprintf("/proc/%d/fd/%d", pid, fd),
		unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_INO, &st)
	return st, err
}
