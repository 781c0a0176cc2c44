package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// The kinds of file descriptors. Others have the kernel's own name, such as
// "eventfd" or "inotify".
const (
	KindTCP    = "tcp"
	KindUDP    = "udp"
	KindUnix   = "unix"
	KindSocket = "socket" // any other, or one that can't be looked into
	KindPipe   = "pipe"
	KindEpoll  = "eventpoll"
	KindFile   = "file" // anything with a path
)

// ErrNoFD says that a process has no such file descriptor.
var ErrNoFD = errors.New("no such file descriptor (it may just have been closed)")

// FD is what a file descriptor of a process leads to. What could not be found
// out is empty, or false.
type FD struct {
	Number int
	Kind   string
	Path   string // of a file, as the process sees it
	// Local and Peer are address:port, or the path of a unix socket.
	Local, Peer string
	State       string // of a socket: ESTABLISHED, SYN_SENT, …
	// What lies in the kernel, in bytes: received and not read yet, sent and
	// not acknowledged yet.
	RecvQueue, SendQueue int
	QueuesKnown          bool
	// Quiet is for how long a TCP connection has carried nothing, either way.
	Quiet      time.Duration
	QuietKnown bool
	ino        uint64 // of a socket
}

// FD looks at a file descriptor. One of epoll is followed to the first that it
// watches.
func (p *Process) FD(n int) (FD, error) {
	link, err := os.Readlink(p.path(fmt.Sprintf("fd/%d", n)))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && p.Alive() {
			err = ErrNoFD
		}
		return FD{}, p.fail(fmt.Sprintf("look at file descriptor %d", n), err)
	}
	fd := FD{Number: n}
	kind, rest, named := strings.Cut(link, ":")
	switch {
	case strings.HasPrefix(link, "/"):
		fd.Kind, fd.Path = KindFile, strings.TrimSuffix(link, " (deleted)")
	case !named:
		fd.Kind = link
	case kind == "socket":
		return p.socket(fd, inode(rest))
	case kind == "anon_inode":
		fd.Kind = strings.Trim(rest, "[]")
	default:
		fd.Kind = kind
	}
	return fd, nil
}

// inode is the number in "[4711]", 0 for none.
func inode(s string) uint64 {
	n, err := strconv.ParseUint(strings.Trim(s, "[]"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// maxWatched bounds how many of epoll's file descriptors are listed.
const maxWatched = 64

// Watched lists the file descriptors that an epoll one watches, as far as they
// were not closed or replaced since.
func (p *Process) Watched(epoll int) ([]int, error) {
	b, err := os.ReadFile(p.path(fmt.Sprintf("fdinfo/%d", epoll)))
	if err != nil {
		return nil, p.fail(fmt.Sprintf("look at file descriptor %d", epoll), err)
	}
	var out []int
	for line := range strings.Lines(string(b)) {
		// "tfd:        5 events:       19 data: …"
		v, ok := strings.CutPrefix(line, "tfd:")
		if !ok || len(out) == maxWatched {
			continue
		}
		var n int
		if _, err := fmt.Sscan(v, &n); err == nil {
			out = append(out, n)
		}
	}
	return out, nil
}
