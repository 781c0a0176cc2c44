// Command chaos lets phpwhy loose on real PHP workers, and at a moment drawn
// by lot does to phpwhy or to the worker what happens on production hosts: a
// kill, a signal, an exec, a fork. Then it looks at what became of the worker.
//
// Contract: phpwhy is the real binary, and each round has a fresh worker and a
// seed of its own, with which it can be repeated. Whatever is not as it was
// before is a failure, and any failure is a non-zero exit status. `chaos load`
// does the same to a php-fpm pool that serves requests, and counts those;
// `chaos endurance` lets phpwhy watch run over workers that come and go.
//
// Hazard: the moments are real time. A seed repeats the plan of a round and
// its share of a window, not the instruction at which a signal arrives;
// -again repeats it often enough.
//
// Non-goal: it tests no output; it only wants a report that is one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// patience is how long phpwhy may take beyond its --for before it counts as
// hung. The machine may be busy.
const patience = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, errs io.Writer) error {
	if len(args) > 0 && args[0] == "load" {
		return runLoad(ctx, args[1:], out, errs)
	}
	if len(args) > 0 && args[0] == "endurance" {
		return runEndurance(ctx, args[1:], out, errs)
	}
	c, err := parse(args, errs)
	if err != nil {
		return err
	}
	defer c.close()
	results, err := c.play(ctx)
	if err != nil && len(results) == 0 {
		return err
	}
	terr := intoFile(c.into, "chaos", out, func(w io.Writer) error { return c.print(ctx, w, results) })
	if terr != nil {
		return errors.Join(err, terr)
	}
	failed := 0
	for _, o := range results {
		if o.failed() {
			failed++
		}
	}
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d rounds failed", failed, len(results)))
	}
	return err
}

// config is what the command line says, and what was prepared from it.
type config struct {
	php, fpm, phpwhy string
	engines          []string
	rounds           int           // per engine
	limit            time.Duration // for all of them
	base             uint64        // the seed of the first round
	only             string        // the event; empty for all
	again            bool          // every round has the first one's plan
	slots            int           // rounds at a time
	into             string        // a file that gets the tables, too
	settle           time.Duration
	workerLimit      time.Duration
	log              io.Writer // details of failures
	errs             io.Writer

	tmp, script, preload string
	startUp              durations
	closers              []func()
}

func parse(args []string, errs io.Writer) (*config, error) {
	c := &config{errs: errs, log: io.Discard}
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.SetOutput(errs)
	f.StringVar(&c.php, "php", "/usr/bin/php8.2", "the php of the workers; stripped ones will do")
	f.StringVar(&c.fpm, "fpm", "/usr/sbin/php-fpm8.2", "the php-fpm of the workers")
	f.StringVar(&c.phpwhy, "phpwhy", "bin/phpwhy", "the binary to test")
	list := f.String("engines", strings.Join(engines, ","), "the engines to test")
	f.IntVar(&c.rounds, "rounds", 1000, "rounds per engine")
	f.DurationVar(&c.limit, "limit", time.Hour, "how long it may take; rounds that are left then are left out")
	f.Uint64Var(&c.base, "seed", uint64(time.Now().UnixNano())%1e9, "the first round's seed; the others count on from it")
	f.StringVar(&c.only, "event", "", "only this event, as the table names it")
	f.BoolVar(&c.again, "again", false, "repeat the first round's plan")
	f.IntVar(&c.slots, "j", 2, "rounds at a time")
	f.DurationVar(&c.workerLimit, "wait", 10*time.Second, "how long a worker may take to do something")
	f.DurationVar(&c.settle, "settle", 2*time.Second, "how long phpwhy's other processes may take to clean up")
	f.StringVar(&c.into, "into", "", "also put the tables into this file, between <!-- chaos --> and <!-- /chaos -->")
	log := f.String("log", "", "append the details of failures to this file")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if c.rounds < 1 || c.slots < 1 || f.NArg() > 0 {
		return nil, errors.New("usage: chaos [-engines hwbp,int3,syscall,uprobe] [-rounds 1000] [-seed N [-again]] [-event NAME] or chaos load; see -help")
	}
	if _, err := newPlan(0, c.only); err != nil {
		return nil, err
	}
	c.engines = strings.Split(*list, ",")
	if *log != "" {
		file, err := os.OpenFile(*log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		c.log = file
		c.closers = append(c.closers, func() { _ = file.Close() })
	}
	if err := c.prepare(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *config) close() {
	for _, f := range c.closers {
		f()
	}
}
