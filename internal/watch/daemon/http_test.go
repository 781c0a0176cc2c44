package daemon

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/phpwhy/phpwhy/internal/watch"
)

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:0": true, "127.0.0.2:0": true, "localhost:0": true,
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "10.0.0.1:0": false, "example.org:0": false,
	} {
		l, err := Listen(addr, false)
		if err == nil {
			_ = l.Close()
		}
		if ok && err != nil || !ok && !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%q: %v", addr, err)
		}
	}
	l, err := Listen("0.0.0.0:0", true)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func get(t *testing.T, url string) (int, string, http.Header) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b), r.Header
}

func TestHealthAndReadiness(t *testing.T) {
	l, err := Listen("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Every: time.Second, Observe: 3 * time.Second, Env: func(string) string { return "" }})
	stop := d.serve(l)
	defer stop()
	base := "http://" + l.Addr().String()
	for _, step := range []struct {
		change        func(*counts)
		health, ready int
	}{
		{func(*counts) {}, 200, 503},
		{func(c *counts) { c.ready, c.lastTick = true, time.Now() }, 200, 200},
		{func(c *counts) { c.lastTick = time.Now().Add(-time.Minute) }, 503, 503},
		{func(c *counts) { c.lastTick, c.running, c.since = time.Now(), true, time.Now().Add(-30*time.Second) }, 200, 200},
		{func(c *counts) { c.since = time.Now().Add(-70 * time.Second) }, 503, 503},
	} {
		d.counts.change(step.change)
		if code, body, _ := get(t, base+"/healthz"); code != step.health {
			t.Errorf("/healthz: %d %s, want %d", code, body, step.health)
		}
		if code, body, _ := get(t, base+"/readyz"); code != step.ready {
			t.Errorf("/readyz: %d %s, want %d", code, body, step.ready)
		}
	}
	if code, _, _ := get(t, base+"/elsewhere"); code != 404 {
		t.Errorf("/elsewhere: %d", code)
	}
	r, err := http.Post(base+"/metrics", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", r.StatusCode)
	}
	if code, body, h := get(t, base+"/metrics"); code != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/plain; version=0.0.4") || !strings.Contains(body, "phpwhy_watch_workers 0\n") {
		t.Errorf("/metrics: %d %v %s", code, h, body)
	}
}

// The text exposition format, as the documentation of Prometheus has it.
var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	oneSample  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"\})? (\S+)$`)
)

// parse reads the format strictly: each metric once, with help and type before
// its samples, no sample twice. It returns the samples.
func parse(text string) (map[string]float64, error) {
	out := make(map[string]float64)
	seen := make(map[string]bool)
	help, kind := "", ""
	if !strings.HasSuffix(text, "\n") {
		return nil, errors.New("the last line has no end")
	}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, doc, _ := strings.Cut(rest, " ")
			if !metricName.MatchString(name) || doc == "" || seen[name] {
				return nil, fmt.Errorf("help: %q", line)
			}
			help, kind, seen[name] = name, "", true
			continue
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, k, _ := strings.Cut(rest, " ")
			if name != help || kind != "" || k != "counter" && k != "gauge" {
				return nil, fmt.Errorf("type: %q", line)
			}
			if (k == "counter") != strings.HasSuffix(name, "_total") {
				return nil, fmt.Errorf("a counter's name ends in _total, no other's does: %q", line)
			}
			kind = k
			continue
		}
		m := oneSample.FindStringSubmatch(line)
		if m == nil || m[1] != help || kind == "" {
			return nil, fmt.Errorf("sample: %q", line)
		}
		v, err := strconv.ParseFloat(m[5], 64)
		if err != nil {
			return nil, fmt.Errorf("value: %q", line)
		}
		key := m[1] + m[2]
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("twice: %q", line)
		}
		out[key] = v
	}
	return out, nil
}

func TestMetricsAreInTheExpositionFormat(t *testing.T) {
	c := newCounts()
	c.stats = watch.Stats{Workers: 3, Triggers: map[watch.Kind]int{watch.CPU: 2}}
	add(c.findings, "")
	add(c.findings, "my.\"quoted\\rule\"\nwith \xff lines")
	for i := range 2 * maxSeries {
		add(c.failures, fmt.Sprint("reason", i))
	}
	c.paused = 1500 * time.Microsecond
	c.lastTick = noon
	var b strings.Builder
	if err := c.write(&b, noon.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	got, err := parse(b.String())
	if err != nil {
		t.Fatalf("%v in\n%s", err, b.String())
	}
	for name, want := range map[string]float64{
		"phpwhy_watch_workers": 3, `phpwhy_watch_triggers_total{kind="cpu"}`: 2, `phpwhy_watch_triggers_total{kind="age"}`: 0,
		`phpwhy_watch_findings_total{rule=""}`: 1, `phpwhy_watch_findings_total{rule="my.\"quoted\\rule\"\nwith ? lines"}`: 1,
		"phpwhy_watch_worker_pause_seconds_total": 0.0015, "phpwhy_watch_last_tick_age_seconds": 1,
		`phpwhy_watch_failures_total{reason="other"}`: maxSeries,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	if got["phpwhy_watch_resident_bytes"] < 1<<20 || got["phpwhy_watch_open_files"] < 3 || got["phpwhy_watch_goroutines"] < 1 {
		t.Errorf("own use is not told: %v", got)
	}
}
