package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// measure takes the figures of the watch as it is now.
func (e *endurance) measure(at time.Duration) error {
	m, err := e.watch.metrics()
	if err != nil {
		return err
	}
	pid := e.watch.cmd.Process.Pid
	f := figures{at: at, resident: m["resident_bytes"], heap: m["heap_bytes"], files: m["open_files"], goroutines: m["goroutines"],
		cpu: m["cpu_seconds_total"], ticks: m["ticks_total"], tickTime: m["tick_seconds_total"], children: len(children(pid))}
	f.threads, _ = strconv.Atoi(status(pid, "Threads"))
	if e.first.at == 0 || !e.settled {
		e.first = f
	}
	e.settled = e.settled || m[`observations_total{outcome="seen"}`] >= settledAfter
	e.last = f
	p := &e.peak
	p.resident, p.heap, p.files = max(p.resident, f.resident), max(p.heap, f.heap), max(p.files, f.files)
	p.goroutines, p.threads, p.children = max(p.goroutines, f.goroutines), max(p.threads, f.threads), max(p.children, f.children)
	return nil
}

// settledAfter is the number of observations after which the watch has what it
// keeps: compiled rules, symbols.
const settledAfter = 3

// findings are the verdicts by pid.
func (e *endurance) findings() (map[int][]string, error) {
	f, err := os.Open(filepath.Join(e.tmp, "findings"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := make(map[int][]string)
	for d := json.NewDecoder(f); ; {
		var w struct {
			Worker   struct{ PID int }
			Trigger  struct{ Kind string }
			Verdict  string
			Findings []struct{ Rule string }
		}
		err := d.Decode(&w)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		said := w.Verdict
		if len(w.Findings) > 0 {
			said = w.Findings[0].Rule
		}
		out[w.Worker.PID] = append(out[w.Worker.PID], said)
	}
}

// report prints the table.
func (e *endurance) report(ctx context.Context, out io.Writer, took time.Duration) error {
	header(ctx, out, [][]string{{e.phpwhy, "version"}, {e.fpm, "-n", "-v"}})
	fmt.Fprintf(out, "- %v; workers born and ended: %d of php-fpm, each for one request, and %d scripts of the command line; %d requests refused\n",
		e.length, e.requests.Load(), e.scripts.Load(), e.refused.Load())
	fmt.Fprintf(out, "- SIGTERM to the end: %v\n\n", took.Round(time.Millisecond))
	mib := func(v float64) string { return fmt.Sprintf("%.1f MiB", v/(1<<20)) }
	num := func(v float64) string { return strconv.Itoa(int(v)) }
	a, z, p := &e.first, &e.last, &e.peak
	rows := [][]string{
		{"phpwhy watch", "after " + a.at.Round(time.Second).String(), "highest", "at the end, after " + z.at.Round(time.Second).String()},
		{"memory, resident", mib(a.resident), mib(p.resident), mib(z.resident)},
		{"memory, live objects and garbage", mib(a.heap), mib(p.heap), mib(z.heap)},
		{"open files", num(a.files), num(p.files), num(z.files)},
		{"threads", strconv.Itoa(a.threads), strconv.Itoa(p.threads), strconv.Itoa(z.threads)},
		{"goroutines", num(a.goroutines), num(p.goroutines), num(z.goroutines)},
		{"processes started by it", strconv.Itoa(a.children), strconv.Itoa(p.children), strconv.Itoa(z.children)},
		{"processor time", fmt.Sprintf("%.2f s", a.cpu), "", fmt.Sprintf("%.2f s (%.2f %% of one)", z.cpu, 100*z.cpu/z.at.Seconds())},
		{"one look at all workers", "", "", fmt.Sprintf("%.2f ms", 1000*z.tickTime/max(z.ticks, 1))},
	}
	if err := table(out, rows); err != nil {
		return err
	}
	if i := &e.idlers; i.n > 0 {
		fmt.Fprintf(out, "\nBefore that, over %d idle php-fpm workers once a second for %v: %.2f %% of one processor, %.2f ms for a look at all of them, %s of memory.\n",
			i.n, idleFor, 100*i.share, 1000*i.tick.Seconds(), mib(i.resident))
	}
	fmt.Fprintln(out)
	return e.hangTable(out)
}

// hangTable says what became of the hangs.
func (e *endurance) hangTable(out io.Writer) error {
	found, err := e.findings()
	if err != nil {
		return err
	}
	rows := [][]string{{"hangs", "made", "found", "missed", "verdicts"}}
	for _, k := range []struct{ title, kind string }{
		{"a php-fpm request that computes", "cpu"}, {"a php-fpm request that waits", "wait"}, {"a script that computes", "script"},
	} {
		for _, killed := range []bool{false, true} {
			made, seen := 0, 0
			said := make(map[string]int)
			for _, h := range e.hung {
				if h.kind != k.kind || h.killed != killed {
					continue
				}
				made++
				if v := found[h.pid]; len(v) > 0 {
					seen++
					said[v[0]]++
				}
			}
			title := k.title
			if killed {
				title += ", killed meanwhile"
			}
			var list []string
			for v, n := range said {
				list = append(list, fmt.Sprintf("%s ×%d", v, n))
			}
			slices.Sort(list)
			rows = append(rows, []string{title, strconv.Itoa(made), strconv.Itoa(seen), strconv.Itoa(made - seen), strings.Join(list, ", ")})
		}
	}
	if err := table(out, rows); err != nil {
		return err
	}
	made := make(map[int]bool)
	for _, h := range e.hung {
		made[h.pid] = true
	}
	other := 0
	for pid, said := range found {
		if !made[pid] {
			other++
			fmt.Fprintf(e.errs, "endurance: %d did not hang: %q\n", pid, said)
		}
	}
	kept, err := os.ReadDir(filepath.Join(e.tmp, "captures"))
	fmt.Fprintf(out, "\n%d findings about workers that did not hang; captures kept: %d of %d; on standard error: %d lines\n", other, len(kept), len(found), strings.Count(e.watch.stderr(), "\n"))
	return err
}

// What a watch may have at the end beyond what it had in the beginning.
const (
	moreMemory = 16 << 20
	moreFiles  = 4
)

// verdict says what is not as it should be.
func (e *endurance) verdict() error {
	var errs []error
	a, z := &e.first, &e.last
	if z.heap > a.heap+moreMemory && z.resident > a.resident+moreMemory {
		errs = append(errs, fmt.Errorf("memory grew from %.0f to %.0f bytes", a.resident, z.resident))
	}
	if z.files > a.files+moreFiles || z.goroutines > a.goroutines+moreFiles {
		errs = append(errs, fmt.Errorf("open files grew from %.0f to %.0f, goroutines from %.0f to %.0f", a.files, z.files, a.goroutines, z.goroutines))
	}
	if z.children > 0 {
		errs = append(errs, fmt.Errorf("%d processes are left", z.children))
	}
	found, err := e.findings()
	if err != nil {
		return err
	}
	for _, h := range e.hung {
		if len(found[h.pid]) == 0 && !h.killed {
			errs = append(errs, fmt.Errorf("worker %d (%s) was missed", h.pid, h.kind))
		}
	}
	if text := e.watch.stderr(); text != "" {
		fmt.Fprintf(e.errs, "endurance: phpwhy wrote: %s", text)
	}
	return errors.Join(errs...)
}
