package daemon

import (
	"net"
	"os"
	"strconv"
	"time"
)

// notifier tells systemd how it goes (sd_notify(3)): datagrams to a socket that
// it names in the environment. Without one it does nothing.
type notifier struct {
	addr  *net.UnixAddr
	every time.Duration // of WATCHDOG=1, 0 when systemd does not wait for it
}

// newNotifier reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
func newNotifier(env func(string) string) notifier {
	var n notifier
	name := env("NOTIFY_SOCKET")
	if name == "" || name[0] != '/' && name[0] != '@' {
		return n
	}
	n.addr = &net.UnixAddr{Name: name, Net: "unixgram"} // Go takes @ for the abstract namespace, too
	if pid := env("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return n
	}
	if us, err := strconv.ParseInt(env("WATCHDOG_USEC"), 10, 64); err == nil && us > 0 {
		n.every = time.Duration(us) * time.Microsecond / 2
	}
	return n
}

// notify sends one state, such as READY=1. systemd need not be there.
func (n notifier) notify(state string) {
	if n.addr == nil {
		return
	}
	c, err := net.DialUnix("unixgram", nil, n.addr)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte(state))
}
