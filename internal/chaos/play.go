package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

//go:embed testdata/worker.c
var workerC []byte

//go:embed testdata/worker.php
var workerPHP []byte

// prepare compiles what is loaded into the workers.
func (c *config) prepare() error {
	var err error
	if c.phpwhy, err = filepath.Abs(c.phpwhy); err != nil {
		return err
	}
	if c.tmp, err = os.MkdirTemp("", "chaos"); err != nil {
		return err
	}
	c.closers = append(c.closers, func() { os.RemoveAll(c.tmp) })
	c.script, c.preload = filepath.Join(c.tmp, "worker.php"), filepath.Join(c.tmp, "worker.so")
	src := filepath.Join(c.tmp, "worker.c")
	err = errors.Join(os.WriteFile(src, workerC, 0o600), os.WriteFile(c.script, workerPHP, 0o600))
	if err != nil {
		return err
	}
	if out, err := exec.Command("gcc", "-O2", "-Wall", "-shared", "-fPIC", "-pthread", "-o", c.preload, src).CombinedOutput(); err != nil {
		return fmt.Errorf("gcc: %w: %s", err, out)
	}
	return nil
}

// job is a round to be played.
type job struct {
	engine string
	seed   uint64
}

const (
	maxBroken     = 20 // rounds that did not work, before the run is given up
	progressEvery = 10 * time.Second
)

// play plays all rounds. The results are valid together with an error.
func (c *config) play(ctx context.Context) ([]*outcome, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, errTimeout)
	defer cancel()
	jobs := make(chan job)
	go func() {
		defer close(jobs)
		for i := range c.rounds {
			for _, e := range c.engines {
				s := c.base
				if !c.again {
					s += uint64(i)
				}
				select {
				case jobs <- job{e, s}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	b := &board{config: c, began: time.Now(), cancel: cancel}
	var wg sync.WaitGroup
	var errs error
	for i := range c.slots {
		dir := filepath.Join(c.tmp, fmt.Sprint("slot", i))
		if err := errors.Join(os.Mkdir(dir, 0o755), copyFile(filepath.Join(dir, "phpwhy"), c.phpwhy)); err != nil {
			errs = errors.Join(errs, err)
			cancel()
			break
		}
		wg.Go(func() {
			for j := range jobs {
				if ctx.Err() == nil {
					b.one(ctx, j, dir)
				}
			}
		})
	}
	wg.Wait()
	errs = errors.Join(errs, b.err)
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout) && errs == nil {
		errs = context.Cause(ctx)
	}
	return b.results, errs
}

// board collects the results.
type board struct {
	*config
	mu      sync.Mutex
	began   time.Time
	told    time.Time
	results []*outcome
	failed  int
	broken  int
	err     error
	cancel  func()
}

func (b *board) one(ctx context.Context, j job, dir string) {
	p, err := newPlan(j.seed, b.only)
	var o *outcome
	if err == nil {
		o, err = b.runRound(ctx, j.engine, p, dir)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		fmt.Fprintf(b.errs, "chaos: %s, %s: this round did not work: %v\n", j.engine, p.String(), err)
		if b.broken++; b.broken == maxBroken {
			b.err = fmt.Errorf("%d rounds did not work", b.broken)
			b.cancel()
		}
		return
	}
	b.results = append(b.results, o)
	if o.failed() {
		b.failed++
		text := fmt.Sprintf("%s, %s: %s\n", o.engine, o.String(), o.what())
		for _, n := range o.notes {
			text += "  " + n + "\n"
		}
		fmt.Fprint(b.errs, "FAILED ", text)
		fmt.Fprint(b.log, text)
	}
	if all := b.rounds * len(b.engines); time.Since(b.told) > progressEvery || len(b.results) == all {
		b.told = time.Now()
		spent := time.Since(b.began)
		left := time.Duration(float64(spent) / float64(len(b.results)) * float64(all-len(b.results)))
		fmt.Fprintf(b.errs, "chaos: %d of %d rounds, %d failed, %v left\n", len(b.results), all, b.failed, min(left, b.limit-spent).Round(time.Second))
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("the binary under test: %w (make build)", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// durations keeps the last measurements of something.
type durations struct {
	mu   sync.Mutex
	last []time.Duration
}

const (
	keepDurations   = 31
	defaultDuration = 80 * time.Millisecond // before there is any
)

func (d *durations) add(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = append(d.last, t)
	if len(d.last) > keepDurations {
		d.last = d.last[1:]
	}
}

func (d *durations) median() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.last) == 0 {
		return defaultDuration
	}
	return slices.Sorted(slices.Values(d.last))[len(d.last)/2]
}
