package proc

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// own opens this process, whose sockets a test knows.
func own(t *testing.T) *Process {
	t.Helper()
	p, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// onFD runs do with a connection's file descriptor.
func onFD(t *testing.T, c net.Conn, do func(n int)) {
	t.Helper()
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(fd uintptr) { do(int(fd)) }); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAFileDescriptorLeadsTo(t *testing.T) {
	p := own(t)
	tcp := pair(t, "tcp", "127.0.0.1:0")
	tcp6 := pair(t, "tcp", "[::1]:0")
	path := filepath.Join(t.TempDir(), "sock")
	local := pair(t, "unix", path)
	udp, err := net.Dial("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := tcp.server.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	for _, c := range []struct {
		name string
		conn net.Conn
		want FD
	}{
		{"tcp", tcp.client, FD{Kind: KindTCP, Local: tcp.client.LocalAddr().String(), Peer: tcp.client.RemoteAddr().String(), State: "ESTABLISHED", RecvQueue: 5}},
		{"tcp over IPv6", tcp6.client, FD{Kind: KindTCP, Local: tcp6.client.LocalAddr().String(), Peer: tcp6.client.RemoteAddr().String(), State: "ESTABLISHED"}},
		{"unix", local.client, FD{Kind: KindUnix, Peer: path, State: "ESTABLISHED"}},
		{"the server's side of unix", local.server, FD{Kind: KindUnix, Local: path, State: "ESTABLISHED"}},
		{"udp", udp, FD{Kind: KindUDP, Local: udp.LocalAddr().String(), Peer: "127.0.0.1:53", State: "ESTABLISHED"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onFD(t, c.conn, func(n int) {
				got, err := p.FD(n)
				if err != nil {
					t.Fatal(err)
				}
				if !got.QueuesKnown || got.QuietKnown != (c.want.Kind == KindTCP) || got.Quiet > 30*time.Second {
					t.Errorf("%+v", got)
				}
				if got.ino == 0 {
					t.Error("its inode is not known")
				}
				got.QueuesKnown, got.QuietKnown, got.Quiet, got.ino = false, false, 0, 0
				if c.want.Number = n; got != c.want {
					t.Errorf("%+v, not %+v", got, c.want)
				}
			})
		})
	}
}

// The tables are what is left where a socket can't be duplicated; they must say
// the same.
func TestTablesOfSocketsSayTheSame(t *testing.T) {
	p := own(t)
	for _, c := range []connected{pair(t, "tcp", "127.0.0.1:0"), pair(t, "tcp", "[::1]:0")} {
		onFD(t, c.client, func(n int) {
			want, err := p.FD(n)
			if err != nil {
				t.Fatal(err)
			}
			var st unix.Stat_t
			if err := unix.Fstat(n, &st); err != nil {
				t.Fatal(err)
			}
			got := FD{Number: n, Kind: KindSocket, ino: st.Ino}
			if err := p.inTables(&got, st.Ino); err != nil {
				t.Fatal(err)
			}
			want.Quiet, want.QuietKnown = 0, false // no table says that
			if got != want {
				t.Errorf("%+v, not %+v", got, want)
			}
		})
	}
}

func TestAConnectionThatIsNotTakenHasAPeer(t *testing.T) {
	p := own(t)
	// A queue of one, and nobody who takes from it.
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	last := -1
	for range 3 {
		if last, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(last)
		if err := unix.Connect(last, sa); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	got, err := p.FD(last)
	if err != nil || got.State != "SYN_SENT" || got.Peer != address(sa) || got.QuietKnown {
		t.Errorf("%+v, %v; not SYN_SENT to %s", got, err, address(sa))
	}
}

func TestFileDescriptorsThatAreNoSockets(t *testing.T) {
	p := own(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ep)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, int(r.Fd()), &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]FD{int(f.Fd()): {Kind: KindFile, Path: f.Name()}, int(r.Fd()): {Kind: KindPipe}, ep: {Kind: KindEpoll}} {
		want.Number = n
		if got, err := p.FD(n); err != nil || got != want {
			t.Errorf("%+v, %v; not %+v", got, err, want)
		}
	}
	if got, err := p.Watched(ep); err != nil || len(got) != 1 || got[0] != int(r.Fd()) {
		t.Errorf("epoll watches %v, %v; not [%d]", got, err, r.Fd())
	}
	if _, err := p.FD(9999); err == nil || !strings.Contains(err.Error(), "no such file descriptor") {
		t.Errorf("descriptor 9999: %v", err)
	}
}

func TestALineOfATableThatIsNone(t *testing.T) {
	for _, line := range []string{
		"  0: 0100007F 00000000:0000 0A 0:0 00:00 0 0 0 7",
		"  0: 0100007F:0CEA 000000:0000 0A 0:0 00:00 0 0 0 7",
		"  0: 0100007F:0CEA 00000000:0000 XX 0:0 00:00 0 0 0 7",
	} {
		if found, err := inetSocket(strings.NewReader(line), &FD{}, 7); found || err == nil {
			t.Errorf("%q: found %v, %v", line, found, err)
		}
	}
}

type connected struct{ client, server net.Conn }

func pair(t *testing.T, network, addr string) connected {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return connected{client, server}
}
