package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed testdata/load
var loadFiles embed.FS

// load is a php-fpm pool behind nginx, asked by wrk.
type load struct {
	phpwhy, fpm  string
	nginx, wrk   string
	length       time.Duration // of each kind of window
	windows      int           // of each kind
	workers      int
	connections  int
	pause        time.Duration // between two runs of phpwhy
	seed         uint64
	into         string // a file that gets the table, too
	tmp          string
	url          string
	master       int
	phpwhyRuns   map[string]int // by command
	phpwhyFaults []string
	out, errs    io.Writer
}

func runLoad(ctx context.Context, args []string, out, errs io.Writer) (err error) {
	l := &load{out: out, errs: errs, phpwhyRuns: map[string]int{}}
	f := flag.NewFlagSet("chaos load", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&l.phpwhy, "phpwhy", "bin/phpwhy", "the binary to test")
	f.StringVar(&l.fpm, "fpm", "/usr/sbin/php-fpm8.2", "the php-fpm of the pool")
	f.StringVar(&l.nginx, "nginx", "/usr/sbin/nginx", "nginx")
	f.StringVar(&l.wrk, "wrk", "/usr/bin/wrk", "wrk")
	f.DurationVar(&l.length, "for", time.Minute, "how long each kind of window lasts in all")
	f.IntVar(&l.windows, "windows", 5, "windows of each kind")
	f.IntVar(&l.workers, "workers", 32, "workers of the pool")
	f.IntVar(&l.connections, "c", 16, "connections of wrk")
	f.DurationVar(&l.pause, "pause", 0, "between two runs of phpwhy")
	f.Uint64Var(&l.seed, "seed", 1, "of the choice of workers")
	f.StringVar(&l.into, "into", "", "also put the table into this file, between <!-- load --> and <!-- /load -->")
	if err := f.Parse(args); err != nil {
		return err
	}
	if l.windows < 1 || l.workers < 1 || l.connections < 1 || f.NArg() > 0 {
		return errors.New("usage: chaos load [-for 60s] [-windows 5] [-workers 32] [-c 16]; see -help")
	}
	if l.phpwhy, err = filepath.Abs(l.phpwhy); err != nil {
		return err
	}
	if l.tmp, err = os.MkdirTemp("", "load"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(l.tmp)) }()
	stop, err := l.serve(ctx)
	defer stop()
	if err != nil {
		return err
	}
	return l.measure(ctx)
}

// window is what wrk saw in one stretch of time.
type window struct {
	requests, failed int
	p50, p99, max    time.Duration
}

// side is one of the ways in which windows are played.
type side struct {
	name    string
	on      []int // the processes that phpwhy runs on; none: it does not run
	windows []window
}

// measure plays the windows in turn and prints the table.
func (l *load) measure(ctx context.Context) error {
	each := l.length / time.Duration(l.windows)
	before := children(l.master)
	if _, err := l.ask(ctx, warmUp); err != nil {
		return err
	}
	sides := []*side{{name: "without phpwhy"}, {name: "phpwhy on the master, which serves nothing", on: []int{l.master}}, {name: "phpwhy on the workers", on: before}}
	r := rand.New(rand.NewPCG(l.seed, 0))
	for i := range l.windows {
		for _, s := range sides {
			w, err := l.play(ctx, each, r, s.on)
			if err != nil {
				return err
			}
			s.windows = append(s.windows, w)
			fmt.Fprintf(l.errs, "load: window %d of %d, %s: %d requests, %d failed\n", i+1, l.windows, s.name, w.requests, w.failed)
		}
	}
	var found error // by report, which is no reason not to write it
	err := intoFile(l.into, "load", l.out, func(out io.Writer) error {
		found = l.report(ctx, out, sides, before)
		return nil
	})
	return errors.Join(err, found)
}

// play is one window, in which phpwhy runs on some processes.
func (l *load) play(ctx context.Context, d time.Duration, r *rand.Rand, pids []int) (window, error) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		if len(pids) > 0 {
			l.disturb(ctx, r, pids, quit)
		}
	}()
	w, err := l.ask(ctx, d)
	close(quit)
	<-done
	return w, err
}

const warmUp = 3 * time.Second

// ask lets wrk send requests for a time.
func (l *load) ask(ctx context.Context, d time.Duration) (window, error) {
	cmd := exec.CommandContext(ctx, l.wrk, "-t", "1", "-c", strconv.Itoa(l.connections), "-d", fmt.Sprintf("%ds", max(1, int(d.Seconds()))),
		"--timeout", "10s", "-s", filepath.Join(l.tmp, "mix.lua"), l.url)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return window{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	_, line, ok := strings.Cut(string(out), "RESULT ")
	var w window
	var wrong, connect, read, write, timeout, p50, p99, top int
	if n, err := fmt.Sscan(line, &w.requests, &wrong, &connect, &read, &write, &timeout, &p50, &p99, &top); !ok || err != nil || w.requests == 0 {
		return w, fmt.Errorf("wrk gave %d figures: %s", n, out)
	}
	w.failed = wrong + connect + read + write + timeout
	w.p50, w.p99, w.max = time.Duration(p50)*time.Microsecond, time.Duration(p99)*time.Microsecond, time.Duration(top)*time.Microsecond
	return w, nil
}

// disturb runs phpwhy on one worker after the other until quit.
func (l *load) disturb(ctx context.Context, r *rand.Rand, pids []int, quit <-chan struct{}) {
	var commands [][]string
	for _, e := range engines {
		commands = append(commands, []string{"attach", "--engine", e, "--for", "500ms"}, []string{"dump"})
	}
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-quit:
			return
		case <-time.After(l.pause):
		}
		c := commands[i%len(commands)]
		pid := pids[r.IntN(len(pids))]
		out, err := exec.CommandContext(ctx, l.phpwhy, append(slices.Clone(c), strconv.Itoa(pid))...).CombinedOutput()
		if err != nil && ctx.Err() == nil {
			l.phpwhyFaults = append(l.phpwhyFaults, fmt.Sprintf("%s %d: %v: %s", strings.Join(c, " "), pid, err, out))
		}
		l.phpwhyRuns[strings.Join(c, " ")]++
	}
}

// report prints the table, and says what went wrong.
func (l *load) report(ctx context.Context, out io.Writer, sides []*side, before []int) error {
	header(ctx, out, [][]string{{l.phpwhy, "version"}, {l.fpm, "-n", "-v"}, {l.nginx, "-v"}})
	var runs []string
	for c, n := range l.phpwhyRuns {
		runs = append(runs, fmt.Sprintf("%d × `phpwhy %s`", n, c))
	}
	slices.Sort(runs)
	after := children(l.master)
	fmt.Fprintf(out, "- %d static workers, %d connections, %d windows of %v of each kind in turn; in all %s\n- workers that are still the same: %d of %d\n\n",
		l.workers, l.connections, l.windows, l.length/time.Duration(l.windows), strings.Join(runs, ", "), len(before)-missing(before, after), len(before))
	rows := [][]string{{"", "requests", "failed", "median", "p99", "longest", "longest of all"}}
	failed := 0
	for _, s := range sides {
		row, n := summary(s.name, s.windows)
		rows = append(rows, row)
		failed += n
	}
	if err := table(out, rows); err != nil {
		return err
	}
	var errs error
	if failed > 0 {
		errs = fmt.Errorf("%d requests failed", failed)
	}
	if n := missing(before, after); n > 0 {
		errs = errors.Join(errs, fmt.Errorf("%d workers are gone", n))
	}
	for _, pid := range after {
		if n, err := textDiffers(pid); n > 0 || err != nil || traced(pid) || standing(pid) || trapAction(pid) {
			errs = errors.Join(errs, fmt.Errorf("worker %d is not as it was: %d bytes of libc's code, state %s", pid, n, status(pid, "State")))
		}
	}
	for _, f := range l.phpwhyFaults {
		errs = errors.Join(errs, errors.New(f))
	}
	if errs != nil {
		log, _ := os.ReadFile(filepath.Join(l.tmp, "fpm.log"))
		fmt.Fprintf(l.errs, "load: php-fpm wrote: %s\n", log)
	}
	return errs
}

func missing(before, after []int) int {
	n := 0
	for _, pid := range before {
		if !slices.Contains(after, pid) {
			n++
		}
	}
	return n
}

// summary is a row: sums of requests, medians of the windows' latencies.
func summary(name string, ws []window) ([]string, int) {
	var all window
	column := func(f func(window) time.Duration) []time.Duration {
		var out []time.Duration
		for _, w := range ws {
			out = append(out, f(w))
		}
		slices.Sort(out)
		return out
	}
	for _, w := range ws {
		all.requests += w.requests
		all.failed += w.failed
	}
	longest := column(func(w window) time.Duration { return w.max })
	mid := func(v []time.Duration) string { return millis(v[(len(v)-1)/2]) }
	return []string{name, strconv.Itoa(all.requests), strconv.Itoa(all.failed),
		mid(column(func(w window) time.Duration { return w.p50 })), mid(column(func(w window) time.Duration { return w.p99 })),
		mid(longest), millis(longest[len(longest)-1])}, all.failed
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1000) }

// killGroup ends a program and all that it has started.
func killGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
}
