package daemon

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestNotifyReachesSystemd(t *testing.T) {
	for name, addr := range map[string]string{
		"a path": filepath.Join(t.TempDir(), "notify"), "the abstract namespace": "@phpwhy-test-" + strconv.Itoa(os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			env := map[string]string{"NOTIFY_SOCKET": addr, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": strconv.Itoa(os.Getpid())}
			n := newNotifier(func(k string) string { return env[k] })
			if n.every != 2*time.Second {
				t.Errorf("watchdog every %v, want half of 4s", n.every)
			}
			n.notify("READY=1")
			_ = l.SetReadDeadline(time.Now().Add(5 * time.Second))
			b := make([]byte, 100)
			got, err := l.Read(b)
			if err != nil || string(b[:got]) != "READY=1" {
				t.Errorf("got %q (%v)", b[:got], err)
			}
		})
	}
}

func TestNotifyWithoutSystemd(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"no socket":            {"WATCHDOG_USEC": "1000000"},
		"an address it is not": {"NOTIFY_SOCKET": "vsock:1:2", "WATCHDOG_USEC": "1000000"},
		"nobody listens":       {"NOTIFY_SOCKET": "/nonexistent/notify"},
		"another process's":    {"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
		"nonsense":             {"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "-5x"},
	} {
		n := newNotifier(func(k string) string { return env[k] })
		if n.every != 0 {
			t.Errorf("%s: watchdog every %v", name, n.every)
		}
		n.notify("READY=1") // must neither fail nor wait
	}
}
