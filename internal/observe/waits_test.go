package observe

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// silent connects to a port of its own that nobody reads from, and prints it.
const silent = `<?php
$server = stream_socket_server('tcp://127.0.0.1:0');
file_put_contents($argv[1], stream_socket_get_name($server, false));
$connection = stream_socket_client('tcp://' . stream_socket_get_name($server, false));
stream_set_timeout($connection, 600);
echo "ready\n";
flush();
`

// silentPeer starts a script that begins so, and says who its peer is.
func silentPeer(t *testing.T, php, rest string) (pid int, peer string) {
	t.Helper()
	dir := t.TempDir()
	script, out := filepath.Join(dir, "wait.php"), filepath.Join(dir, "peer")
	writeFile(t, script, silent+rest)
	pid = testphp.StartCommand(t, php, "-n", script, out).PID
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return pid, string(b)
}

func expect(t *testing.T, c *capture.Capture, want map[string]any) {
	t.Helper()
	for name, v := range want {
		if got := c.Facts[name]; got != v {
			t.Errorf("%s is %v, not %v", name, got, v)
		}
	}
}

func TestWhatAWorkerWaitsFor(t *testing.T) {
	opt := Defaults()
	opt.For = time.Second
	for _, c := range []struct {
		name, rest string
		want       map[string]any
	}{
		{"a read", `fgets($connection);`, map[string]any{
			"wait.syscall": "poll", "wait.fds": int64(1), "wait.timeout_s": 600.0, "fd.kind": "tcp", "fd.state": "ESTABLISHED"}},
		{"stream_select", `$other = stream_socket_client("tcp://" . stream_socket_get_name($server, false)); $r = [$connection, $other]; $w = $e = null; stream_select($r, $w, $e, null);`, map[string]any{
			"wait.fds": int64(2), "wait.timeout_s": -1.0, "fd.kind": "tcp", "fd.state": "ESTABLISHED"}},
	} {
		for name, php := range map[string]string{"stripped": testphp.Stripped(t), "DWARF": testphp.DWARF(t)} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				pid, peer := silentPeer(t, php, c.rest)
				c.want["fd.peer"] = peer
				// After the first observation the kernel has forgotten the call's number.
				for range 2 {
					got, err := New().Attach(context.Background(), pid, opt)
					if err != nil {
						t.Fatal(err)
					}
					expect(t, got, c.want)
					samples := got.Observation.Samples
					if s, ok := got.Facts["wait.lasting_s"].(float64); samples > 2 && (!ok || s < 0.5*got.Events[len(got.Events)-1].At.Seconds()) {
						t.Errorf("one wait is said to have lasted %v s in %d samples", got.Facts["wait.lasting_s"], samples)
					}
				}
				got, err := New().Dump(context.Background(), pid)
				if err != nil {
					t.Fatal(err)
				}
				expect(t, got, c.want)
				if _, known := got.Facts["wait.lasting_s"]; known {
					t.Error("one sample can't tell how long a wait lasts")
				}
				if got, err = New().Sample(context.Background(), pid); err != nil {
					t.Fatal(err)
				}
				expect(t, got, c.want)
			})
		}
	}
}

func TestShortWaitsAreNotOneLongWait(t *testing.T) {
	opt := Defaults()
	opt.For = time.Second
	// The same call with the same arguments from the same place, over and over.
	pid, _ := silentPeer(t, testphp.Stripped(t), `while (true) { $r = [$connection]; $w = $e = null; stream_select($r, $w, $e, 0, 20000); }`)
	c, err := New().Attach(context.Background(), pid, opt)
	if err != nil {
		t.Fatal(err)
	}
	if s, ok := c.Facts["wait.lasting_s"].(float64); !ok || s > 0.25 {
		t.Errorf("waits of 20 ms are said to have lasted %v s", c.Facts["wait.lasting_s"])
	}
}

func TestAWorkerThatComputesWaitsForNothing(t *testing.T) {
	opt := Defaults()
	opt.For = 500 * time.Millisecond
	w := testphp.Start(t, testphp.Stripped(t), testphp.Hang(t, "cpu.php-loop.php"))
	c, err := New().Attach(context.Background(), w.PID, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"wait.syscall", "fd.kind", "fd.peer"} {
		if v, known := c.Facts[name]; known {
			t.Errorf("%s is %v", name, v)
		}
	}
	if c.Observation.Samples > 1 {
		expect(t, c, map[string]any{"wait.lasting_s": 0.0})
	}
}

func TestAWaitInPiecesIsAsLongAsTheConnectionIsQuiet(t *testing.T) {
	opt := Defaults()
	opt.For = 3 * time.Second
	// The first piece is the longest.
	pid, peer := silentPeer(t, testphp.Stripped(t), `for ($us = 1500000;; $us = 350000) { $r = [$connection]; $w = $e = null; stream_select($r, $w, $e, 0, $us); }`)
	began := time.Now()
	got, err := New().Attach(context.Background(), pid, opt)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, got, map[string]any{"fd.peer": peer})
	// The last piece that was seen twice began at most two of them ago.
	whole := time.Since(began).Seconds()
	if s, ok := got.Facts["wait.for_s"].(float64); !ok || s < got.Events[len(got.Events)-1].At.Seconds()-1 || s > whole+5 {
		t.Errorf("a wait of %.1f s is said to last %v s", whole, got.Facts["wait.for_s"])
	}
}

func TestWhoAsksAgainAndAgainDoesNotWait(t *testing.T) {
	opt := Defaults()
	opt.For = time.Second
	for name, rest := range map[string]string{
		"select": `for (;;) { $r = [$connection]; $w = $e = null; stream_select($r, $w, $e, 0, 0); }`,
		"poll":   `stream_set_timeout($connection, 0); for (;;) { feof($connection); }`,
	} {
		t.Run(name, func(t *testing.T) {
			pid, _ := silentPeer(t, testphp.Stripped(t), rest)
			got, err := New().Attach(context.Background(), pid, opt)
			if err != nil {
				t.Fatal(err)
			}
			if on, ok := got.Facts["wait.on"]; ok || len(got.Observation.Notes) > 0 {
				t.Errorf("it is said to wait for %v: %q", on, got.Observation.Notes)
			}
		})
	}
}
