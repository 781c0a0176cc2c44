package proc

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Hazard: a duplicate of a worker's socket keeps the connection open, so it is
// asked what there is to ask and closed at once. It shares the worker's file
// status flags and its data: nothing here reads, writes or sets anything.

// maxSockets bounds the lines that are read of a table of sockets.
const maxSockets = 1 << 18

// tcpStates by their numbers (include/net/tcp_states.h).
var tcpStates = [...]string{1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2",
	6: "TIME_WAIT", 7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "NEW_SYN_RECV"}

func tcpState(n uint8) string {
	if int(n) < len(tcpStates) {
		return tcpStates[n]
	}
	return ""
}

// socket completes what is known of a socket: from a duplicate of it, which
// tells most; and where that can't be had (before Linux 5.6, or not permitted)
// or does not know the peer yet, from the tables of the process's own network
// namespace.
func (p *Process) socket(fd FD, ino uint64) (FD, error) {
	fd.Kind, fd.ino = KindSocket, ino
	dup, err := p.duplicate(fd.Number)
	if err == nil {
		ask(&fd, dup, ino)
		err = unix.Close(dup)
	}
	if fd.Kind != KindSocket && fd.Peer != "" || ino == 0 {
		return fd, nil
	}
	if terr := p.inTables(&fd, ino); terr != nil && fd.Kind == KindSocket {
		return fd, p.fail(fmt.Sprintf("look at file descriptor %d", fd.Number), errors.Join(err, terr))
	}
	return fd, nil
}

func (p *Process) duplicate(n int) (int, error) {
	pid, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(pid) }()
	return unix.PidfdGetfd(pid, n, 0)
}

// ask fills in what a socket says of itself. A socket of another inode has
// taken the number meanwhile and is left alone.
func ask(fd *FD, dup int, ino uint64) {
	var st unix.Stat_t
	if err := unix.Fstat(dup, &st); err != nil || st.Ino != ino {
		return
	}
	domain, err := unix.GetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return
	}
	protocol, err := unix.GetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return
	}
	inet := domain == unix.AF_INET || domain == unix.AF_INET6
	switch {
	case domain == unix.AF_UNIX:
		fd.Kind = KindUnix
	case inet && protocol == unix.IPPROTO_TCP:
		fd.Kind = KindTCP
	case inet && protocol == unix.IPPROTO_UDP:
		fd.Kind = KindUDP
	}
	if sa, err := unix.Getsockname(dup); err == nil {
		fd.Local = address(sa)
	}
	if sa, err := unix.Getpeername(dup); err == nil {
		fd.Peer, fd.State = address(sa), tcpStates[1]
	}
	in, err1 := unix.IoctlGetInt(dup, unix.SIOCINQ)
	out, err2 := unix.IoctlGetInt(dup, unix.SIOCOUTQ)
	if err1 == nil && err2 == nil {
		fd.RecvQueue, fd.SendQueue, fd.QueuesKnown = in, out, true
	}
	if fd.Kind != KindTCP {
		return
	}
	info, err := unix.GetsockoptTCPInfo(dup, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return
	}
	fd.State = tcpState(info.State)
	// Before the connection stands this counts from the machine's start.
	if fd.Peer != "" {
		fd.Quiet = time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond
		fd.QuietKnown = true
	}
}

// address is address:port, or a unix socket's path: "@name" for an abstract one,
// empty for none.
func address(sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String() //nolint:gosec // a port
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String() //nolint:gosec // a port
	case *unix.SockaddrUnix:
		if a.Name == "@" { // one without a name
			return ""
		}
		return a.Name
	}
	return ""
}

// inTables looks a socket up in the network namespace of the process.
func (p *Process) inTables(fd *FD, ino uint64) error {
	var errs []error
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6", "unix"} {
		kind := strings.TrimSuffix(table, "6")
		if fd.Kind != KindSocket && fd.Kind != kind {
			continue
		}
		f, err := os.Open(p.path("net/" + table))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		find := inetSocket
		if table == "unix" {
			find = unixSocket
		}
		found, err := find(f, fd, ino)
		errs = append(errs, err, f.Close())
		if found {
			fd.Kind = kind
			return nil
		}
	}
	return errors.Join(append(errs, errors.New("no table has its socket"))...)
}

// inetSocket finds a socket in /proc/PID/net/tcp or one of its like:
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
//	0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   104        0 21377 …
func inetSocket(r io.Reader, fd *FD, ino uint64) (found bool, err error) {
	want := strconv.FormatUint(ino, 10)
	sc := bufio.NewScanner(r)
	for n := 0; sc.Scan(); n++ {
		if n > maxSockets {
			return false, fmt.Errorf("more than %d sockets", maxSockets)
		}
		f := strings.Fields(sc.Text())
		if len(f) < 10 || f[9] != want {
			continue
		}
		local, err1 := tableAddress(f[1])
		peer, err2 := tableAddress(f[2])
		st, err3 := strconv.ParseUint(f[3], 16, 8)
		if err := errors.Join(err1, err2, err3); err != nil {
			return false, err
		}
		fd.Local, fd.State = local.String(), tcpState(uint8(st)) //nolint:gosec // parsed as 8 bits
		if peer.Port() != 0 {
			fd.Peer = peer.String()
		}
		if !fd.QueuesKnown {
			tx, rx, _ := strings.Cut(f[4], ":")
			out, err1 := strconv.ParseUint(tx, 16, 31)
			in, err2 := strconv.ParseUint(rx, 16, 31)
			if err1 == nil && err2 == nil {
				fd.RecvQueue, fd.SendQueue, fd.QueuesKnown = int(in), int(out), true //nolint:gosec // 31 bits
			}
		}
		return true, nil
	}
	return false, sc.Err()
}

// tableAddress reads "0100007F:0CEA": words of the host's byte order.
func tableAddress(s string) (netip.AddrPort, error) {
	a, p, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(a)
	port, perr := strconv.ParseUint(p, 16, 16)
	if err != nil || perr != nil || len(b) != 4 && len(b) != 16 {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", s)
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	ip, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), nil //nolint:gosec // parsed as 16 bits
}

// unixSocket finds a socket in /proc/PID/net/unix, which does not tell peers:
//
//	Num       RefCount Protocol Flags    Type St Inode Path
//	000…: 00000002 00000000 00010000 0001 01 21377 /run/mysqld/mysqld.sock
func unixSocket(r io.Reader, fd *FD, ino uint64) (found bool, err error) {
	want := strconv.FormatUint(ino, 10)
	sc := bufio.NewScanner(r)
	for n := 0; sc.Scan(); n++ {
		if n > maxSockets {
			return false, fmt.Errorf("more than %d sockets", maxSockets)
		}
		f := strings.Fields(sc.Text())
		if len(f) < 7 || f[6] != want {
			continue
		}
		if len(f) > 7 {
			fd.Local = f[7]
		}
		return true, nil
	}
	return false, sc.Err()
}
