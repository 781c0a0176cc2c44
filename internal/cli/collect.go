package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/collect"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/triage"
	"github.com/phpwhy/phpwhy/internal/workers"
)

type collectFlags struct {
	judged
	workerFlags
	opt   collect.Options
	pause string
	out   string
	top   bool
	keep  keeping
}

func newCollect(s streams) *cobra.Command {
	var c collectFlags
	cmd := &cobra.Command{
		Use:   "collect",
		Short: "Look at many workers at once and say which share a cause",
		Long: `collect stops each PHP worker once per round, for as long as copying its stack takes, and groups the workers by
cause and by stack. Without --every and --for it makes one round, of which rules about what lasts stay undecided.
Without a choice it takes every PHP worker of the host: php-fpm, php, Apache with mod_php, and programs that have
PHP inside.
With -o it also writes what it saw to a file, which "phpwhy report" reads alone or together with other hosts'. With -o - the
capture goes to standard output, for another program, and there is no report.
With --break workers are observed as "phpwhy attach" does, for a second in each round, four at a time.`,
		Example: "  phpwhy collect\n  phpwhy collect --pool www --every 1s --for 30s -o www.zst\n  phpwhy collect --pool www --every 500ms --for 3s --fail-on high\n  phpwhy collect --cgroup 4f5e1c0b9a8d --top",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, done := unsuspended(cmd.Context(), s)
			defer done()
			return c.run(ctx, s)
		},
	}
	c.judged.flags(cmd)
	c.workerFlags.flags(cmd)
	c.keep.flags(cmd)
	f := cmd.Flags()
	f.DurationVar(&c.opt.Every, "every", 0, "time between the beginnings of two rounds (with --for or --top: 1s)")
	f.DurationVar(&c.opt.For, "for", 0, "for how long to begin rounds (with --every alone: until it is interrupted)")
	f.StringSliceVar(&c.opt.Break, "break", nil, "functions of the C library to stop at, such as mmap,mremap")
	f.StringVar(&c.opt.Engine, "engine", "auto", "how to stop with --break: auto, hwbp, int3 or syscall")
	f.IntVar(&c.opt.Concurrency, "concurrency", 0, "workers to stop and read side by side (default: 1 per processor, 4 per processor on a busy host, 4 in all with --break)")
	f.StringVar(&c.pause, "max-pause", "20%", "share of the time that workers may be stopped with --break, all taken together")
	f.StringVarP(&c.out, "output", "o", "", "write the capture to this file (.zst: compressed)")
	f.BoolVar(&c.top, "top", false, "show a table of causes that is renewed with each round (on a terminal only)")
	return cmd
}

// collectEngines are those that --engine takes.
var collectEngines = []string{"auto", "hwbp", "int3", "syscall"}

// slice is how long one worker is observed in a round with --break.
const slice = time.Second

// everyDefault is the time between rounds when only --for or --top say that
// there are several.
const everyDefault = time.Second

func (c *collectFlags) check() error {
	o := &c.opt
	switch {
	case o.Every < 0 || o.For < 0:
		return usageErrorf("--every and --for must not be negative")
	case o.Concurrency < 0:
		return usageErrorf("--concurrency must be at least 1")
	case !slices.Contains(collectEngines, o.Engine):
		return usageErrorf("--engine is %s or %s, not %q", strings.Join(collectEngines[:len(collectEngines)-1], ", "), collectEngines[len(collectEngines)-1], o.Engine)
	case c.out == "-" && c.top:
		return usageErrorf("--top and -o - both want standard output; name a file")
	}
	if (o.For > 0 || c.top) && o.Every == 0 {
		o.Every = everyDefault
	}
	var err error
	if o.MaxPause, err = percent(c.pause); err != nil {
		return err
	}
	if o.Filter, err = c.filter(); err != nil {
		return err
	}
	o.Slice, o.Tool = slice, buildVersion()
	return c.judged.check()
}

func (c *collectFlags) run(ctx context.Context, s streams) error {
	if err := c.check(); err != nil {
		return err
	}
	t := &tee{build: triage.NewBuilder()}
	switch c.out {
	case "":
	case "-":
		t.to = s.out
	default:
		// Before anything is stopped: a full disk is no reason to have done so.
		var err error
		if t.out, err = capture.Prepare(c.out); err != nil {
			return usageErrorf("-o: %v", err)
		}
		t.to = t.out
		defer func() { _ = t.out.Close() }()
	}
	// Rules are read beside the first round, which is mostly waiting for workers.
	loaded := sync.OnceValue(c.load)
	go loaded()
	if len(c.opt.Break) == 0 {
		defer debug.SetGCPercent(debug.SetGCPercent(dumpGC))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.show = newBar(s.err)
	if c.top {
		top, err := newTop(s, loaded().set, cancel)
		if err != nil {
			return err
		}
		defer top.close()
		t.show, c.opt.Hold = top, top.hold
	}
	// No lower priority, as attach has: where forty workers want the processors, a
	// round would never end. It takes a few milliseconds of processor time per worker.
	modest(proc.Tracing())
	o := observe.New()
	defer c.keep.in(o)()
	res, err := collect.Run(ctx, o, c.opt, t)
	t.show.close()
	if err == nil && t.out != nil {
		err = t.out.Close()
	}
	if err != nil && t.to != nil && fullDisk(err) {
		err = fmt.Errorf("-o %s: %w", c.out, reason(err))
	}
	if err != nil && res.Looks == 0 {
		return err
	}
	if c.out == "-" {
		if err == nil && res.Looks == 0 {
			err = res.First
		}
		return err
	}
	rs := loaded()
	m := t.build.Model(rs.set, time.Now())
	for _, p := range rs.problems {
		m.Notes = append(m.Notes, "rule skipped: "+p.String())
	}
	err = errors.Join(err, showMany(s, c.format, m))
	if err == nil && res.Looks == 0 && res.First != nil {
		// Nobody could be looked at.
		if errors.Is(res.First, observe.ErrNoBreakpoint) {
			return usageErrorf("--break %s: %w", strings.Join(c.opt.Break, ","), res.First)
		}
		return res.First
	}
	c.gate.many(m)
	return c.gate.verdict(err)
}

// shower shows how a collection goes on.
type shower interface {
	round(n, workers int)
	look(h capture.Header, w *workers.Worker, round int, at time.Duration, c *capture.Capture)
	done(n int)
	close()
}

// tee hands what is collected to the file, the report and the terminal.
type tee struct {
	h     capture.Header
	out   *capture.Output // nil without a file
	to    io.Writer       // out or standard output; nil without -o
	w     *capture.StreamWriter
	build *triage.Builder
	show  shower
}

func (t *tee) Begin(h capture.Header) (err error) {
	t.h = h
	if t.to != nil {
		t.w, err = capture.NewStreamWriter(t.to, h)
	}
	return err
}

func (t *tee) Round(n, workers int) error { t.show.round(n, workers); return nil }

func (t *tee) Look(w *workers.Worker, round int, at time.Duration, c *capture.Capture) error {
	t.build.Capture(t.h, w.PID, w.Start, w.Pool, round, at, c)
	t.show.look(t.h, w, round, at, c)
	if t.w == nil {
		return nil
	}
	id, err := t.w.Process(w.PID, w.Start, w.Pool, c.Target)
	if err != nil {
		return err
	}
	return t.w.Look(id, round, at, c)
}

func (t *tee) Fail(pid, round int, err error) error {
	t.build.Failed(t.h, pid, round, errors.New(oneLine(err)))
	if t.w == nil {
		return nil
	}
	return t.w.Fail(pid, round, err)
}

func (t *tee) Gone(w *workers.Worker, round int) error {
	t.build.Gone(t.h, w.PID, w.Start)
	if t.w == nil {
		return nil
	}
	return t.w.Gone(w.PID, w.Start, round)
}

func (t *tee) Done(n int) error {
	t.show.done(n)
	if t.w == nil {
		return nil
	}
	return t.w.Flush()
}

func (t *tee) End(rounds int, ended string) error {
	if t.w == nil {
		return nil
	}
	return t.w.End(rounds, ended)
}

// bar is a progress bar on a terminal, and nothing elsewhere.
type bar struct {
	w         io.Writer
	on, shown bool
	n, of     int
	last      time.Time
}

func newBar(w io.Writer) *bar {
	f, ok := w.(*os.File)
	return &bar{w: w, on: ok && term.IsTerminal(int(f.Fd()))}
}

func (b *bar) round(_, workers int) { b.n, b.of = 0, workers }

func (b *bar) look(_ capture.Header, _ *workers.Worker, round int, _ time.Duration, _ *capture.Capture) {
	b.n++
	if !b.on || time.Since(b.last) < 50*time.Millisecond && b.n < b.of {
		return
	}
	b.last, b.shown = time.Now(), true
	const width = 30
	full := width * b.n / max(1, b.of)
	fmt.Fprintf(b.w, "\rround %d [%-*s] %d/%d workers ", round, width, bars[:full], b.n, b.of)
}

const bars = "=============================="

func (b *bar) done(int) {}

func (b *bar) close() {
	if b.shown {
		fmt.Fprint(b.w, wipe())
		b.shown = false
	}
}
