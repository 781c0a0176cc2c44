package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/testphp"
)

// fpms are Debian's stripped php-fpm and all that were built.
func fpms(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{"stripped": testphp.StrippedFPM(t)}
	for _, dir := range testphp.Builds(t) {
		if path := filepath.Join(dir, "sbin/php-fpm"); fileExists(path) {
			out[filepath.Base(dir)] = path
		}
	}
	return out
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// requestOf dumps a worker and returns its request, as JSON has it, and its facts.
func requestOf(t *testing.T, pid int) (*capture.Request, string, map[string]any) {
	t.Helper()
	c, err := New().Dump(context.Background(), pid)
	if err != nil {
		t.Fatal(err)
	}
	if c.Target.Request == nil {
		t.Fatalf("worker %d has no request", pid)
	}
	b, err := json.Marshal(c.Target.Request)
	if err != nil {
		t.Fatal(err)
	}
	return c.Target.Request, string(b), c.Facts
}

// TestTheAgeOfARequestThatNeverAsksForTheTime: PHP notes REQUEST_TIME only when
// a script wants it, and php-fpm notes every request.
func TestTheAgeOfARequestThatNeverAsksForTheTime(t *testing.T) {
	for name, fpm := range fpms(t) {
		t.Run(name, func(t *testing.T) {
			pool := testphp.FPM(t, fpm, 2)
			begin := time.Now()
			pid := pool.Route(t, testphp.Hang(t, "sleep.php"), "/real/route?x=1")
			running := time.Now()
			time.Sleep(1200 * time.Millisecond)
			least := time.Since(running)
			q, text, facts := requestOf(t, pid)
			age, most := time.Duration(ageOf(q))*time.Millisecond, time.Since(begin)
			if age < least-time.Millisecond || age > most || q.URI != "/real/route?x=1" {
				t.Errorf("got %s, want an age between %s and %s", text, least, most)
			}
			if s, ok := facts["php.request_age_s"].(float64); !ok || s < 1.1 {
				t.Errorf("php.request_age_s is %v", facts["php.request_age_s"])
			}
		})
	}
}

// TestTheAgeOfARequestInOtherNamespaces: the worker's pid and its monotonic clock
// are others than here.
func TestTheAgeOfARequestInOtherNamespaces(t *testing.T) {
	testphp.Require(t, "unshare")
	for _, offset := range []string{"5000", "-60"} {
		t.Run("clock "+offset, func(t *testing.T) {
			fpm := filepath.Join(t.TempDir(), "fpm")
			text := fmt.Sprintf("#!/bin/sh\nexec unshare --fork --pid --time --monotonic %s --kill-child %s \"$@\"\n", offset, testphp.StrippedFPM(t))
			if err := os.WriteFile(fpm, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
			pool := testphp.FPM(t, fpm, 1)
			begin := time.Now()
			pool.Hang(t, testphp.Hang(t, "sleep.php"), "")
			master := pool.Workers[0] // unshare's child
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", master, master))
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(1500 * time.Millisecond)
			q, text, _ := requestOf(t, pid)
			// The wall clock, in whole seconds.
			if most := time.Since(begin).Milliseconds() + 1000; ageOf(q) < 1400 || ageOf(q) > most {
				t.Errorf("got %s, want 1500 to %d ms", text, most)
			}
		})
	}
}

// TestAnAgeThatNobodyKnowsIsNotZero: PHP's own web server has no scoreboard.
func TestAnAgeThatNobodyKnowsIsNotZero(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "index.php"), "<?php while (ob_get_level()) ob_end_flush();\nif (isset($_GET['time'])) require 'time.php';\necho \"ready\\n\"; flush(); sleep(600);\n")
	writeFile(t, filepath.Join(dir, "time.php"), "<?php $_SERVER['REQUEST_TIME'];\n")
	for query, known := range map[string]bool{"": false, "?time=1": true} {
		t.Run("query "+query, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := l.Addr().String()
			_ = l.Close()
			// Without JIT of auto globals $_SERVER would be made for every request.
			c := exec.Command(testphp.Stripped(t), "-n", "-S", addr, "-t", dir)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
			var body io.ReadCloser
			for range 500 {
				var r *http.Response
				if r, err = http.Get("http://" + addr + "/some/page" + query); err == nil {
					body = r.Body
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if _, err := io.ReadFull(body, make([]byte, len("ready\n"))); err != nil {
				t.Fatal(err)
			}
			q, text, facts := requestOf(t, c.Process.Pid)
			_, fact := facts["php.request_age_s"]
			if known != fact || known != (ageOf(q) > 0) || known == strings.Contains(text, `"age_ms":null`) {
				t.Errorf("the age is known: %v; got %s, fact %v", known, text, facts["php.request_age_s"])
			}
			if q.Method != "GET" || q.URI != "/some/page"+query {
				t.Errorf("got %s", text)
			}
		})
	}
}

// ageOf is a request's age in milliseconds, 0 when it is unknown.
func ageOf(q *capture.Request) int64 {
	age, _ := q.Age()
	return age
}
