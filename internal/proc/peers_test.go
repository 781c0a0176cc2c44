package proc

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func FuzzPeerIn(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, sockDiagByFamily, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = peerIn(b) }) // it does not panic
}

func TestTheOtherEndOfALocalConnectionIsFound(t *testing.T) {
	p, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": filepath.Join(t.TempDir(), "s")} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Log(err) // no IPv6
			continue
		}
		defer l.Close()
		var peers Peers
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		find := func(c net.Conn) (Holder, bool) {
			raw, err := c.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			fd, err := p.FD(int(raw.Fd()))
			if err != nil {
				t.Fatal(err)
			}
			return peers.Of(p, fd)
		}
		// Nobody has accepted it yet: of TCP it is known who listens.
		if h, ok := find(c); network != "unix" && (!ok || h.PID != os.Getpid()) {
			t.Errorf("%s, not accepted: %+v, %v", network, h, ok)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		peers = Peers{}
		for _, end := range []net.Conn{c, s} {
			if h, ok := find(end); !ok || h.PID != os.Getpid() {
				t.Errorf("%s: %+v, %v", network, h, ok)
			}
		}
	}
}
