// Package daemon runs phpwhy watch: it looks at all workers at a steady pace,
// has the ones that misbehave observed, and hands on what was found.
//
// Contract: one observation at a time. Nothing that goes wrong with a worker, a
// file, the command or the listener ends the watch; it is told and counted.
// When the context ends, the observation in progress is ended and its worker let
// go before Run returns.
//
// Hazard: it runs for months as root. Everything that is remembered, queued or
// written has a bound.
//
// Non-goal: which worker is next, package watch decides; why it hangs, the rules.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/watch"
)

// Options say what to watch and what to do about it.
type Options struct {
	Policy  watch.Policy
	Every   time.Duration // between two looks at all workers
	Observe time.Duration // how long an observation lasts at most
	// Find lists the workers. ErrOver ends the watch; any other error is told,
	// and the next tick tries again.
	Find func(context.Context) ([]Worker, error)
	// Attach observes one worker.
	Attach func(ctx context.Context, pid int) (*capture.Capture, error)
	// Judge asks the rules. It is called from one goroutine.
	Judge func(*capture.Capture) (report.Verdict, error)
	// Reload is called for each value that Reloads sends, between observations.
	Reload  func()
	Reloads <-chan os.Signal

	Store    *Store       // nil: no captures are kept
	Command  *Command     // nil: none
	Listener net.Listener // nil: none
	Out      io.Writer    // takes findings, one line each
	Log      func(string) // takes one line each, without its end
	Env      func(string) string
}

// ErrOver says that there is nothing left to watch, and never will be.
var ErrOver = errors.New("the processes to watch have ended")

// Daemon is one watch.
type Daemon struct {
	opt    Options
	engine *watch.Engine
	scan   *scanner
	counts *counts
	notify notifier

	ended    chan finished
	commands chan run
	told     map[string]time.Time // when a failure was last logged
	toldMu   sync.Mutex
}

// finished is an observation that has ended.
type finished struct {
	outcome watch.Outcome
	took    time.Duration
}

// run is one run of the command.
type run struct {
	w    *report.Watched
	line []byte
}

// New makes a Daemon.
func New(o Options) *Daemon {
	o.Policy.Grain = proc.TimesGrain
	d := &Daemon{
		opt: o, engine: watch.New(o.Policy), scan: newScanner(o.Find, findingEvery(o.Policy)), counts: newCounts(), notify: newNotifier(o.Env),
		ended: make(chan finished, 1), commands: make(chan run, maxWaiting), told: make(map[string]time.Time),
	}
	return d
}

// Run watches until the context ends, which is no error, or returns ErrOver.
func (d *Daemon) Run(ctx context.Context) error {
	if d.opt.Listener != nil {
		defer d.serve(d.opt.Listener)()
	}
	var running sync.WaitGroup
	defer running.Wait()
	if d.opt.Command != nil {
		running.Go(func() { d.runCommands(ctx) })
	}
	d.used()
	tick := time.NewTicker(d.opt.Every)
	defer tick.Stop()
	defer d.notify.notify("STOPPING=1")
	pulse := d.pulse()
	defer pulse.Stop()
	over := d.look(ctx, &running, time.Now())
	for !over {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			over = d.look(ctx, &running, now)
		case f := <-d.ended:
			now := time.Now()
			d.engine.Done(now, f.outcome)
			d.counts.change(func(c *counts) {
				c.running = false
				c.observing += f.took
				c.stats = d.engine.Stats()
			})
			d.next(ctx, &running, now)
		case <-d.opt.Reloads:
			d.reload()
		case <-pulse.C:
			if d.healthy(time.Now()) == nil {
				d.notify.notify("WATCHDOG=1")
			}
		}
	}
	return ErrOver
}

// forever is a period that no watch lasts.
const forever = 1 << 62

// pulse ticks when systemd waits for a sign of life.
func (d *Daemon) pulse() *time.Ticker {
	if d.notify.every > 0 {
		return time.NewTicker(d.notify.every)
	}
	return time.NewTicker(forever)
}

// reload reads the rules again.
func (d *Daemon) reload() {
	d.notify.notify("RELOADING=1\nMONOTONIC_USEC=" + monotonic())
	d.opt.Reload()
	d.notify.notify("READY=1")
}

// monotonic is the clock that systemd compares RELOADING=1 with.
func monotonic() string {
	up, err := proc.Monotonic()
	if err != nil {
		return "0"
	}
	return fmt.Sprint(up.Microseconds())
}

// look looks at all workers, and has the next one observed. It reports whether
// there will never be any again.
func (d *Daemon) look(ctx context.Context, running *sync.WaitGroup, now time.Time) (over bool) {
	begin := time.Now()
	samples, err := d.scan.scan(ctx, now)
	switch {
	case errors.Is(err, ErrOver):
		return true
	case err != nil:
		if ctx.Err() == nil {
			d.failed("find_workers", err)
		}
		return false
	}
	d.engine.Tick(now, samples, d.scan.look)
	d.counts.change(func(c *counts) {
		if !c.ready {
			c.ready = true
			d.notify.notify(fmt.Sprintf("READY=1\nSTATUS=watching %d workers", len(samples)))
		}
		c.stats = d.engine.Stats()
		c.ticks++
		c.lastTick = time.Now()
		c.scanTime += time.Since(begin)
	})
	d.next(ctx, running, now)
	return false
}

// next begins an observation when one is due and allowed.
func (d *Daemon) next(ctx context.Context, running *sync.WaitGroup, now time.Time) {
	if ctx.Err() != nil {
		return
	}
	t, ok := d.engine.Next(now)
	if !ok {
		return
	}
	pool := d.scan.pool(t.ID)
	d.counts.change(func(c *counts) {
		c.running, c.since = true, time.Now()
		c.stats = d.engine.Stats()
	})
	running.Go(func() {
		begin := time.Now()
		o := d.observe(ctx, t, pool)
		// The copies of an observation are large, and the next one may be hours away.
		debug.FreeOSMemory()
		d.ended <- finished{o, time.Since(begin)}
	})
}

// observe observes one worker and hands on what was found.
func (d *Daemon) observe(ctx context.Context, t watch.Trigger, pool string) watch.Outcome {
	c, err := d.attach(ctx, t.ID)
	if c == nil || err != nil && len(c.Events) == 0 {
		return d.nothing(ctx, t, err)
	}
	if len(c.Events) == 0 && c.Observation.Ended == endedTarget {
		return d.nothing(ctx, t, proc.ErrNoProcess)
	}
	if err != nil {
		c.Observation.Notes = append(c.Observation.Notes, oneLine(err.Error()))
	}
	o := watch.Outcome{Paused: time.Duration(c.Observation.PausedUSTotal) * time.Microsecond}
	d.counts.change(func(n *counts) {
		n.observed[outcomeSeen]++
		n.paused += o.Paused
		n.pausedMax = max(n.pausedMax, time.Duration(c.Observation.PausedUSMax)*time.Microsecond)
	})
	d.tell(c, t, pool)
	return o
}

// endedTarget is capture.Observation.Ended when the worker has ended.
const endedTarget = "target-exited"

// attach observes a worker that still is the one that misbehaved.
func (d *Daemon) attach(ctx context.Context, id watch.ID) (*capture.Capture, error) {
	now, err := proc.ReadTimes(id.PID)
	if err == nil && now.Start != id.Start {
		err = &proc.Error{PID: id.PID, What: "look at process", Err: proc.ErrNoProcess, Advice: "its pid is another process's now"}
	}
	if err != nil {
		return nil, err
	}
	return d.opt.Attach(ctx, id.PID)
}

// nothing counts an observation that has seen nothing.
func (d *Daemon) nothing(ctx context.Context, t watch.Trigger, err error) watch.Outcome {
	switch {
	case ctx.Err() != nil: // the watch is over
		return watch.Outcome{Gone: true}
	case ended(err) || !alive(t.ID): // one that is ending fails in many ways
		d.counts.change(func(c *counts) { c.observed[outcomeGone]++ })
		return watch.Outcome{Gone: true}
	}
	d.counts.change(func(c *counts) { c.observed[outcomeFailed]++ })
	if err == nil {
		err = errors.New("nothing was seen")
	}
	d.failed(reason(err), fmt.Errorf("worker %d: %w", t.PID, err))
	return watch.Outcome{}
}

// alive reports whether a worker still runs.
func alive(id watch.ID) bool {
	t, err := proc.ReadTimes(id.PID)
	return err == nil && t.Start == id.Start && t.State != 'Z' && t.State != 'X'
}

// tell judges a capture, keeps it, and writes the finding.
func (d *Daemon) tell(c *capture.Capture, t watch.Trigger, pool string) {
	var v report.Verdict
	err := c.Normalize()
	if err == nil {
		v, err = d.opt.Judge(c)
	}
	if err != nil {
		d.failed("rules", err)
		v.Notes = append(v.Notes, oneLine(err.Error()))
	}
	w := report.BuildWatched(c, v)
	w.Time = t.At.Round(time.Millisecond)
	w.Worker.StartTicks, w.Worker.Pool = t.Start, pool
	w.Trigger = report.Trigger{Kind: string(t.Kind), CPUPct: float64(int(1000*t.Share)) / 10, ForMS: t.Period.Milliseconds(), RequestAgeMS: t.Age.Milliseconds()}
	if d.opt.Store != nil {
		path, err := d.opt.Store.Write(c, t.At)
		if err != nil {
			d.failed("capture", fmt.Errorf("write the capture: %w", err))
			w.Note("the capture could not be kept: " + oneLine(err.Error()))
		}
		if w.Capture = path; path != "" {
			d.counts.change(func(n *counts) { n.written++ })
		}
		d.used()
	}
	rule := ""
	if len(w.Findings) > 0 {
		rule = w.Findings[0].Rule
	}
	d.counts.change(func(n *counts) { add(n.findings, rule) })
	var line strings.Builder
	if err := report.WatchedJSON(&line, w); err != nil {
		d.failed("output", err)
		return
	}
	if _, err := io.WriteString(d.opt.Out, line.String()); err != nil {
		d.failed("output", err)
	}
	if d.opt.Command == nil {
		return
	}
	select {
	case d.commands <- run{w, []byte(line.String())}:
	default:
		d.counts.change(func(n *counts) { n.commands["dropped"]++ })
		d.failed("exec", fmt.Errorf("%d findings wait for %s; this one is not handed to it", maxWaiting, d.opt.Command.Args[0]))
	}
}

// used counts the captures in the folder.
func (d *Daemon) used() {
	if d.opt.Store == nil {
		return
	}
	files, bytes := d.opt.Store.Usage()
	d.counts.change(func(c *counts) { c.files, c.bytes = files, bytes })
}

// runCommands runs the command for each finding, one after the other.
func (d *Daemon) runCommands(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-d.commands:
			err := d.opt.Command.run(ctx, r.w, r.line)
			result := "ok"
			if err != nil {
				result = "failed"
				d.failed("exec", fmt.Errorf("%s: %w", d.opt.Command.Args[0], err))
			}
			d.counts.change(func(c *counts) { c.commands[result]++ })
		}
	}
}

// repeatAfter is how long a failure for the same reason is counted only.
const repeatAfter = time.Minute

// failed counts a failure and logs it, but not all of many.
func (d *Daemon) failed(why string, err error) {
	d.counts.change(func(c *counts) { add(c.failures, why) })
	d.toldMu.Lock()
	defer d.toldMu.Unlock()
	if now := time.Now(); d.told[why].IsZero() || now.Sub(d.told[why]) > repeatAfter {
		d.told[why] = now
		d.opt.Log(oneLine(err.Error()))
	}
}

// reason names a failed observation for the metrics.
func reason(err error) string {
	return observe.Reason(err)
}

// oneLine keeps a message on one line.
func oneLine(s string) string { return printable(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")) }
