package proc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Peers finds the processes at the other ends of local connections, for whoever asks
// about one process after the other: who has which socket is found out once for many.
// It is safe for concurrent use.
type Peers struct {
	mu     sync.Mutex
	at     time.Time
	owners map[uint64][]int // of sockets, by inode
	tables map[string]inetTable
}

const (
	// peersAge is how old the list of sockets may be; peersAgain how old it must be to
	// be made anew for a socket that is not in it.
	peersAge, peersAgain = time.Second, 200 * time.Millisecond
	// maxSocketOwners bounds the processes that are kept of one socket.
	maxSocketOwners = 4
)

// inetTable has the TCP sockets of a network namespace by their two ends. A socket
// that nobody has accepted yet is there with the inode 0.
type inetTable map[[2]netip.AddrPort]uint64

// Of is the process at the other end of a process's socket. A connection that nobody
// has accepted yet waits for whoever listens, if that is one process. ok is false
// where the other end is another host's, or not found.
func (t *Peers) Of(p *Process, fd FD) (h Holder, ok bool) {
	if fd.Kind != KindUnix && fd.Kind != KindTCP {
		return Holder{}, false // no reason to look at all sockets there are
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.at) > peersAge {
		t.scan()
	}
	pid, ok := t.find(p, fd)
	if !ok && time.Since(t.at) > peersAgain {
		t.scan()
		pid, ok = t.find(p, fd)
	}
	if !ok {
		return Holder{}, false
	}
	return NewHolder(pid), true
}

func (t *Peers) find(p *Process, fd FD) (pid int, ok bool) {
	switch fd.Kind {
	case KindUnix:
		if !sameNetwork(p.PID) {
			return 0, false
		}
		ino, err := unixPeer(fd.ino)
		if err != nil || ino == 0 {
			return 0, false
		}
		return t.other(p, uint64(ino))
	case KindTCP:
	default:
		return 0, false
	}
	local, err1 := netip.ParseAddrPort(fd.Local)
	peer, err2 := netip.ParseAddrPort(fd.Peer)
	if err1 != nil || err2 != nil || !peer.Addr().IsLoopback() && peer.Addr() != local.Addr() {
		return 0, false
	}
	table := t.table(p)
	ino, there := table[[2]netip.AddrPort{peer, local}]
	if ino != 0 {
		return t.other(p, ino)
	}
	if !there && fd.State == tcpStates[1] {
		return 0, false
	}
	for _, at := range []netip.Addr{peer.Addr(), netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if ino := table[[2]netip.AddrPort{netip.AddrPortFrom(at, peer.Port()), {}}]; ino != 0 {
			if who := t.owners[ino]; len(who) == 1 {
				return who[0], true
			}
		}
	}
	return 0, false
}

// other is who has a socket, somebody else than p if there is.
func (t *Peers) other(p *Process, ino uint64) (pid int, ok bool) {
	who := t.owners[ino]
	for _, pid := range who {
		if pid != p.PID {
			return pid, true
		}
	}
	if len(who) > 0 {
		return who[0], true
	}
	return 0, false
}

// scan finds out who has which socket.
func (t *Peers) scan() {
	t.at, t.owners, t.tables = time.Now(), make(map[uint64][]int), make(map[string]inetTable)
	s := scan{until: t.at.Add(scanTime)}
	pid := 0
	s.match = func(link string) bool {
		if rest, ok := strings.CutPrefix(link, "socket:"); ok {
			ino := inode(rest)
			if who := t.owners[ino]; len(who) < maxSocketOwners && !slices.Contains(who, pid) {
				t.owners[ino] = append(who, pid)
			}
		}
		return false
	}
	d, err := os.Open("/proc")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		if pid, err = strconv.Atoi(n); err == nil && !s.process(pid) {
			return
		}
	}
}

// table reads the TCP sockets of a process's network namespace.
func (t *Peers) table(p *Process) inetTable {
	ns, err := os.Readlink(p.path("ns/net"))
	if err != nil {
		ns = strconv.Itoa(p.PID)
	}
	if have, ok := t.tables[ns]; ok {
		return have
	}
	out := make(inetTable)
	t.tables[ns] = out
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(p.path("net/" + name))
		if err != nil {
			continue
		}
		sc := bufio.NewScanner(f)
		for n := 0; sc.Scan() && n < maxSockets; n++ {
			out.add(sc.Text())
		}
		_ = f.Close()
	}
	return out
}

// add takes a line of /proc/net/tcp, see inetSocket. One that listens has no peer.
func (t inetTable) add(line string) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return
	}
	local, err1 := tableAddress(f[1])
	peer, err2 := tableAddress(f[2])
	ino, err3 := strconv.ParseUint(f[9], 10, 64)
	if errors.Join(err1, err2, err3) != nil {
		return
	}
	if peer.Port() == 0 {
		peer = netip.AddrPort{}
	}
	t[[2]netip.AddrPort{local, peer}] = ino
}

func sameNetwork(pid int) bool {
	own, err1 := os.Readlink("/proc/self/ns/net")
	its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	return err1 == nil && err2 == nil && own == its
}

// What is asked of the kernel about a unix socket (include/uapi/linux/unix_diag.h,
// sock_diag.h).
const (
	sockDiagByFamily = 20
	unixDiagPeer     = 2 // the attribute
	unixShowPeer     = 4 // … is wanted
	unixDiagReqLen   = 24
	unixDiagMsgLen   = 16
	diagTimeout      = 100 * time.Millisecond
)

// unixPeer is the inode of the socket that a unix socket is connected to, in this
// process's network namespace; 0 when it has no peer.
func unixPeer(ino uint64) (uint32, error) {
	if ino == 0 || ino > 1<<32-1 {
		return 0, unix.EINVAL
	}
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(s) }()
	tv := unix.NsecToTimeval(diagTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return 0, err
	}
	le := binary.NativeEndian
	req := make([]byte, unix.NLMSG_HDRLEN+unixDiagReqLen)
	le.PutUint32(req, uint32(len(req))) //nolint:gosec // 40
	le.PutUint16(req[4:], sockDiagByFamily)
	le.PutUint16(req[6:], unix.NLM_F_REQUEST)
	body := req[unix.NLMSG_HDRLEN:]
	body[0] = unix.AF_UNIX
	le.PutUint32(body[4:], ^uint32(0)) // all states
	le.PutUint32(body[8:], uint32(ino))
	le.PutUint32(body[12:], unixShowPeer)
	le.PutUint64(body[16:], ^uint64(0)) // no cookie
	if err := unix.Sendto(s, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, b, 0)
	if err != nil {
		return 0, err
	}
	return peerIn(b[:n])
}

// peerIn reads the kernel's answer.
func peerIn(b []byte) (uint32, error) {
	le := binary.NativeEndian
	if len(b) < unix.NLMSG_HDRLEN+unixDiagMsgLen || le.Uint16(b[4:]) != sockDiagByFamily {
		return 0, unix.ENOENT
	}
	for b = b[unix.NLMSG_HDRLEN+unixDiagMsgLen:]; len(b) >= unix.SizeofRtAttr; {
		n, kind := int(le.Uint16(b)), le.Uint16(b[2:])
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		if kind == unixDiagPeer && n >= unix.SizeofRtAttr+4 {
			return le.Uint32(b[unix.SizeofRtAttr:]), nil
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return 0, nil
}
