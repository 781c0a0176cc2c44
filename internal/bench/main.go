// Command bench measures phpwhy against gdb, eu-stack, strace and
// bpftrace on one hung PHP, in one run on one machine, and prints Markdown tables.
//
// Contract: the tools take turns within each round and each measurement has a
// worker of its own, so that what changes with time (load, clock speed, the
// worker's memory) meets all of them. A tool that is missing or fails makes a row
// that says so, never a figure.
//
// Hazard: figures from two runs or machines do not compare; ratios within one
// table do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// config is what the command line says.
type config struct {
	php    string        // a php with DWARF
	phpwhy string        // the binary under test
	root   string        // the checkout
	runs   int           // rounds for the tables of dump
	rounds int           // rounds for the table of stops
	stream time.Duration // how long stops are counted
	only   string        // tables to make: "dump,pause,stops,pool"
	fpm    string        // the php-fpm of the pool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	var c config
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&c.php, "php", ".cache/php/8.2-nts/bin/php", "a php with DWARF")
	f.StringVar(&c.phpwhy, "phpwhy", "bin/phpwhy", "the binary to measure")
	f.StringVar(&c.root, "root", ".", "the checkout")
	f.IntVar(&c.runs, "n", 5, "rounds of dump; 9 for a median worth printing")
	f.IntVar(&c.rounds, "rounds", 3, "rounds of stops")
	f.DurationVar(&c.stream, "for", 2*time.Second, "how long stops are counted each time")
	f.StringVar(&c.only, "only", "dump,pause,stops,pool", "the tables to make")
	f.StringVar(&c.fpm, "fpm", "/usr/sbin/php-fpm8.2", "the php-fpm of the pool")
	if err := f.Parse(args); err != nil {
		return err
	}
	if c.runs < 1 || c.rounds < 1 || f.NArg() > 0 {
		return errors.New("usage: bench [-n RUNS] [-rounds ROUNDS] [-for 2s] [-php PATH] [-phpwhy PATH] [-only dump,pause,stops,pool]")
	}
	for _, p := range []*string{&c.php, &c.phpwhy, &c.root} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	tmp, err := os.MkdirTemp("", "phpwhy-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)

	b := &bench{config: c, tmp: tmp, out: out, errs: errs}
	b.header(ctx)
	for _, t := range []struct {
		name string
		make func(context.Context) error
	}{{"dump", b.dumpTable}, {"pause", b.pauseTable}, {"stops", b.stopsTable}, {"pool", b.poolTable}} {
		if !strings.Contains(","+c.only+",", ","+t.name+",") {
			continue
		}
		if err := t.make(ctx); err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
	}
	if len(b.ours) > 0 {
		return fmt.Errorf("phpwhy failed: %s", strings.Join(b.ours, "; "))
	}
	return nil
}

// bench is one run.
type bench struct {
	config
	tmp       string // for caches and compiled helpers
	out, errs io.Writer
	// ours are phpwhy's own failures; a peer's failure is only shown.
	ours []string
}

// failure notes that a tool gave no figure and returns the cell that says so.
func (b *bench) failure(tool string, err error) string {
	if strings.Contains(tool, "phpwhy") {
		b.ours = append(b.ours, tool+": "+err.Error())
	}
	return "failed: " + err.Error()
}

func (b *bench) progress(format string, a ...any) {
	fmt.Fprintf(b.errs, format+"\n", a...)
}
