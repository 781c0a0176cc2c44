package daemon

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/phpwhy/phpwhy/internal/watch"
)

// counts are what the watch has done, by what metrics call it. They are read
// by the listener while the watch goes on.
type counts struct {
	mu        sync.Mutex
	stats     watch.Stats
	observed  map[string]int // observations by outcome: seen, gone, failed
	findings  map[string]int // by rule; "" for none
	failures  map[string]int // by reason
	commands  map[string]int // runs of the command by result
	written   int            // captures
	files     int            // captures there are
	bytes     int64
	paused    time.Duration // workers stood still, in all
	pausedMax time.Duration // the longest single pause
	observing time.Duration
	ticks     int
	scanTime  time.Duration // of all ticks
	lastTick  time.Time
	running   bool      // an observation
	since     time.Time // it began
	ready     bool
}

func newCounts() *counts {
	return &counts{observed: make(map[string]int), findings: make(map[string]int), failures: make(map[string]int), commands: make(map[string]int)}
}

// Outcomes of observations.
const (
	outcomeSeen   = "seen"
	outcomeGone   = "gone"
	outcomeFailed = "failed"
)

// change changes counts.
func (c *counts) change(f func(*counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c)
}

// maxSeries bounds the values of a label that come from rules and errors.
const maxSeries = 500

// add counts a label's value, and those beyond maxSeries as "other".
func add(m map[string]int, label string) {
	if _, ok := m[label]; !ok && len(m) >= maxSeries {
		label = "other"
	}
	m[label]++
}

// expo writes the text exposition format 0.0.4 of Prometheus: of each metric
// its help, its type and its samples.
type expo struct{ b strings.Builder }

func (e *expo) head(name, kind, help string) {
	fmt.Fprintf(&e.b, "# HELP phpwhy_watch_%s %s\n# TYPE phpwhy_watch_%s %s\n", name, help, name, kind)
}

func (e *expo) one(name, kind, help string, v float64) {
	e.head(name, kind, help)
	fmt.Fprintf(&e.b, "phpwhy_watch_%s %v\n", name, v)
}

// by writes one sample per value of a label.
func by[K ~string](e *expo, name, help, label string, m map[K]int, always ...K) {
	e.head(name, "counter", help)
	all := maps.Clone(m)
	if all == nil {
		all = make(map[K]int)
	}
	for _, k := range always {
		all[k] += 0
	}
	for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b K) int { return cmp.Compare(a, b) }) {
		fmt.Fprintf(&e.b, "phpwhy_watch_%s{%s=\"%s\"} %d\n", name, label, escapeLabel(string(k)), all[k])
	}
}

// escapeLabel writes a label's value as the format wants it. Rules come from
// files: what is no UTF-8 would spoil all of the page.
func escapeLabel(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(strings.ToValidUTF8(s, "?"))
}

// write writes all metrics.
func (c *counts) write(w io.Writer, now time.Time) error {
	c.mu.Lock()
	var e expo
	s := &c.stats
	e.one("workers", "gauge", "PHP workers at the last tick.", float64(s.Workers))
	e.one("waiting", "gauge", "Workers that misbehave and wait to be observed.", float64(s.Due))
	by(&e, "triggers_total", "Workers that began to misbehave.", "kind", s.Triggers, watch.Kinds()...)
	by(&e, "observations_total", "Observations that have ended.", "outcome", c.observed, outcomeSeen, outcomeGone, outcomeFailed)
	by(&e, "findings_total", "Observations by their first finding's rule; empty when no rule matches.", "rule", c.findings)
	by(&e, "failures_total", "What went wrong, by reason.", "reason", c.failures)
	by(&e, "missed_total", "Workers that misbehaved and were not observed before they ended or behaved again.", "why",
		map[string]int{"gone": s.Gone, "recovered": s.Recovered})
	by(&e, "delayed_total", "Workers whose observation had to wait for a budget.", "budget", s.Delayed, watch.Delays()...)
	by(&e, "commands_total", "Runs of the command of --exec.", "result", c.commands)
	e.one("observing", "gauge", "Observations in progress, 0 or 1.", flag(c.running))
	e.one("observation_seconds_total", "counter", "Time spent on observations.", c.observing.Seconds())
	e.one("worker_pause_seconds_total", "counter", "Time for which workers stood still.", c.paused.Seconds())
	e.one("worker_pause_longest_seconds", "gauge", "The longest single pause of a worker.", c.pausedMax.Seconds())
	e.one("captures_written_total", "counter", "Captures written.", float64(c.written))
	e.one("captures", "gauge", "Captures in the folder.", float64(c.files))
	e.one("captures_bytes", "gauge", "Size of the captures in the folder.", float64(c.bytes))
	e.one("ticks_total", "counter", "Looks at all workers.", float64(c.ticks))
	e.one("tick_seconds_total", "counter", "Time that looking at all workers took.", c.scanTime.Seconds())
	if !c.lastTick.IsZero() {
		e.one("last_tick_age_seconds", "gauge", "Time since the last look.", now.Sub(c.lastTick).Seconds())
	}
	c.mu.Unlock()
	own := ownUse()
	e.one("cpu_seconds_total", "counter", "Processor time that phpwhy has used, without its children.", own.cpu.Seconds())
	e.one("resident_bytes", "gauge", "Memory of phpwhy.", float64(own.resident))
	e.one("heap_bytes", "gauge", "Memory of phpwhy that is in use by its objects.", float64(own.heap))
	e.one("goroutines", "gauge", "Goroutines of phpwhy.", float64(own.goroutines))
	e.one("open_files", "gauge", "Open files of phpwhy.", float64(own.files))
	_, err := io.WriteString(w, e.b.String())
	return err
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// use is what phpwhy itself takes.
type use struct {
	cpu              time.Duration
	resident         int64
	heap, goroutines uint64
	files            int
}

func ownUse() use {
	var u use
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		u.cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident int64
		if n, _ := fmt.Sscan(string(b), &size, &resident); n == 2 {
			u.resident = resident * int64(os.Getpagesize())
		}
	}
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(s)
	u.heap, u.goroutines = s[0].Value.Uint64(), s[1].Value.Uint64()
	if ents, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.files = len(ents)
	}
	return u
}
