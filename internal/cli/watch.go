package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/watch"
	"github.com/phpwhy/phpwhy/internal/watch/daemon"
	"github.com/phpwhy/phpwhy/rules"
)

type watchFlags struct {
	which     watchedFlags
	rules     []string
	noBuiltin bool
	obs       observe.Options
	pause     string

	cpu, pauseBudget string
	policy           watch.Policy
	every, forTime   time.Duration

	out       string
	keep      int
	keepSize  string
	keepBytes int64

	exec        string
	execTimeout time.Duration
	command     []string

	listen   string
	anywhere bool
}

func newWatch(s streams) *cobra.Command {
	w := &watchFlags{obs: observe.Defaults()}
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Wait for a worker to misbehave, then observe it",
		Long: `watch looks at all PHP workers once a second, and observes, as attach would, one that has used a processor
nearly all of the time for a while, or whose web request has lasted too long. Each finding is one line of JSON on
standard output (phpwhy schema finding). Workers that behave are not stopped.
One worker is observed at a time, and only as often as the budgets allow. It ends with Ctrl-C or SIGTERM; SIGHUP
reads the rules again.`,
		Example: `  phpwhy watch --pool www
  phpwhy watch --cpu 80% --during 1m --age 30s --out /var/lib/phpwhy --listen 127.0.0.1:9127
  phpwhy watch --exec '/usr/local/bin/page-me --team web'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noArgs(cmd, args); err != nil {
				return err
			}
			ctx, done := unsuspended(cmd.Context(), s)
			defer done()
			return w.run(ctx, s)
		},
	}
	f := cmd.Flags()
	w.which.flags(cmd)
	f.StringVar(&w.cpu, "cpu", "90%", "observe a worker that uses this share of a processor or waits for one; 0 for none")
	f.DurationVar(&w.policy.During, "during", 30*time.Second, "for how long without a break, and within one request")
	f.DurationVar(&w.policy.Age, "age", time.Minute, "observe a worker whose web request is older; 0 for none")
	f.DurationVar(&w.every, "every", time.Second, "time between two looks at the workers")
	f.DurationVar(&w.forTime, "for", 0, "end after this time; 0 for never")
	f.DurationVar(&w.obs.For, "observe", 3*time.Second, "how long to observe a worker at most")
	f.StringVar(&w.obs.Engine, "engine", w.obs.Engine, "how to stop: auto, hwbp, int3 or syscall")
	f.StringVar(&w.pause, "max-pause", "20%", "share of an observation that the worker may be stopped")
	f.StringVar(&w.pauseBudget, "pause-budget", "1%", "share of all time that workers may be stopped, all together; 0 for no limit")
	f.IntVar(&w.policy.MaxPerHour, "max-per-hour", 30, "observations in an hour at most; 0 for no limit")
	f.DurationVar(&w.policy.Cooldown, "cooldown", 10*time.Minute, "time before the same worker is observed again")
	f.StringVar(&w.out, "out", "", "folder to keep captures in")
	f.IntVar(&w.keep, "keep", 100, "how many captures to keep; the oldest are removed")
	f.StringVar(&w.keepSize, "keep-size", "256M", "how large they may be all together")
	f.StringVar(&w.exec, "exec", "", "command to run with each finding on its standard input; no shell")
	f.DurationVar(&w.execTimeout, "exec-timeout", 30*time.Second, "time after which that command is ended")
	f.StringVar(&w.listen, "listen", "", "address for /metrics, /healthz and /readyz, such as 127.0.0.1:9127")
	f.BoolVar(&w.anywhere, "listen-anywhere", false, "allow --listen an address that others can reach")
	f.StringArrayVar(&w.rules, "rules", nil, "folder with further rules (may be repeated)")
	f.BoolVar(&w.noBuiltin, "no-builtin-rules", false, "leave the built-in rules out")
	return cmd
}

// minEvery bounds how often the workers are looked at.
const minEvery = 50 * time.Millisecond

func (w *watchFlags) check() error {
	var err error
	if w.policy.CPU, err = shareOrNone("--cpu", w.cpu, 6400); err != nil {
		return err
	}
	if w.policy.MaxPause, err = shareOrNone("--pause-budget", w.pauseBudget, 100); err != nil {
		return err
	}
	if w.obs.MaxPause, err = percent(w.pause); err != nil {
		return err
	}
	if w.keepBytes, err = byteSize(w.keepSize); err != nil {
		return err
	}
	switch {
	case w.policy.CPU <= 0 && w.policy.Age <= 0:
		return usageErrorf("nothing to wait for: give --cpu or --age")
	case w.policy.CPU > 0 && w.policy.During <= 0:
		return usageErrorf("--during must be longer than 0")
	case w.policy.Age < 0 || w.policy.Cooldown < 0 || w.forTime < 0 || w.policy.MaxPerHour < 0:
		return usageErrorf("--age, --cooldown, --for and --max-per-hour can't be less than 0")
	case w.every < minEvery:
		return usageErrorf("--every must be at least %v", minEvery)
	case w.policy.CPU > 0 && w.policy.During < w.every:
		return usageErrorf("--during must be at least as long as --every (%v)", w.every)
	case w.obs.For <= 0:
		return usageErrorf("--observe must be longer than 0")
	case w.keep < 1:
		return usageErrorf("--keep must be at least 1")
	case w.execTimeout <= 0:
		return usageErrorf("--exec-timeout must be longer than 0")
	case w.anywhere && w.listen == "":
		return usageErrorf("--listen-anywhere goes with --listen")
	}
	switch w.obs.Engine {
	case "auto", "hwbp", "int3", "syscall":
	default:
		return usageErrorf("--engine is auto, hwbp, int3 or syscall, not %q", w.obs.Engine)
	}
	if err := w.checkExec(); err != nil {
		return err
	}
	if err := w.which.check(); err != nil {
		return err
	}
	j := judged{rules: w.rules, format: "json"}
	return j.check()
}

func (w *watchFlags) checkExec() error {
	if w.exec == "" {
		return nil
	}
	args, err := daemon.SplitCommand(w.exec)
	if err != nil || len(args) == 0 {
		return usageErrorf("--exec %q: %v", w.exec, cmpErr(err, "it names no program"))
	}
	// A path of its own, so that it does not depend on where it is run.
	if args[0], err = exec.LookPath(args[0]); err == nil {
		args[0], err = filepath.Abs(args[0])
	}
	if err != nil {
		return usageErrorf("--exec: %v", err)
	}
	w.command = args
	return nil
}

func cmpErr(err error, or string) error {
	if err != nil {
		return err
	}
	return errors.New(or)
}

// shareOrNone reads 90% as 0.9, and 0 as 0: none.
func shareOrNone(flag, s string, most float64) (float64, error) {
	if s == "0" {
		return 0, nil
	}
	text, ok := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(text, 64)
	if !ok || err != nil || math.IsNaN(v) || v < 0 || v > most {
		return 0, usageErrorf("%s is a share such as 90%%, at most %v%%, or 0 for none, not %q", flag, most, s)
	}
	return v / 100, nil
}

// byteSize reads 256M, 1G, 1000.
func byteSize(s string) (int64, error) {
	shift := map[byte]uint{'K': 10, 'M': 20, 'G': 30, 'T': 40}
	text, by := s, uint(0)
	if n := len(s); n > 0 && shift[s[n-1]] > 0 {
		text, by = s[:n-1], shift[s[n-1]]
	}
	v, err := strconv.ParseInt(text, 10, 64)
	if err != nil || v <= 0 || v > math.MaxInt64>>by {
		return 0, usageErrorf("--keep-size is a size such as 256M or 1G, not %q", s)
	}
	return v << by, nil
}

func (w *watchFlags) run(ctx context.Context, s streams) error {
	if err := w.check(); err != nil {
		return err
	}
	if err := w.which.missing(ctx); err != nil {
		return err
	}
	log := newLog(s)
	// A line that could not be written is counted and said when it happens, and a watch
	// goes on.
	s.out = unremembered(s.out)
	o := daemon.Options{Policy: w.policy, Every: w.every, Observe: w.obs.For, Out: s.out, Log: log.line, Env: os.Getenv}
	var err error
	if w.listen != "" {
		// Before rights are given up: a port may need one.
		if o.Listener, err = daemon.Listen(w.listen, w.anywhere); err != nil {
			advice := ""
			if errors.Is(err, daemon.ErrNotLoopback) {
				advice = "; add --listen-anywhere if others may read the metrics"
			}
			return usageErrorf("--listen: %v%s", err, advice)
		}
	}
	if w.out != "" {
		dir, err := filepath.Abs(w.out)
		if err != nil {
			return usageErrorf("--out: %v", err)
		}
		o.Store = &daemon.Store{Dir: dir, MaxFiles: w.keep, MaxBytes: w.keepBytes}
		if err := o.Store.Check(); err != nil {
			return usageErrorf("--out: %v", err)
		}
	}
	if len(w.command) > 0 {
		o.Command = &daemon.Command{Args: w.command, For: w.execTimeout, Errs: s.err}
	}
	// A reader that leaves (| head -1) must not kill a program that may be stopping a
	// worker. With nobody else to tell there is no more to do.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if w.out == "" && w.listen == "" && len(w.command) == 0 {
		o.Out = &untilClosed{w: s.out, end: func() {
			log.line("nobody reads the findings any more")
			cancel()
		}}
	}
	o.Find = w.which.finder(log.line)
	// No MakeWay here: when the host is short of processors, it must get its turn.
	modest(proc.Tracing())
	w.wire(&o, log)
	if w.forTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.forTime)
		defer cancel()
	}
	err = daemon.New(o).Run(ctx)
	if errors.Is(err, daemon.ErrOver) {
		log.line(err.Error())
		return nil
	}
	return err
}

// untilClosed is an output whose reader may leave, which ends the watch.
type untilClosed struct {
	w   io.Writer
	end func()
}

func (u *untilClosed) Write(p []byte) (int, error) {
	n, err := u.w.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		u.end()
	}
	return n, err
}

// wire connects the daemon with the observer and the rules.
func (w *watchFlags) wire(o *daemon.Options, log *watchLog) {
	j := judged{rules: w.rules, noBuiltin: w.noBuiltin}
	r := j.load()
	say := func() {
		for _, p := range r.problems {
			log.line("rule skipped: " + p.String())
		}
	}
	say()
	var mu sync.Mutex // an observation may be judged while rules are reloaded
	o.Reload = func() {
		mu.Lock()
		defer mu.Unlock()
		r = j.load()
		log.line(fmt.Sprintf("rules were read again: %d", len(r.set.Rules())))
		say()
	}
	o.Judge = func(c *capture.Capture) (report.Verdict, error) {
		mu.Lock()
		defer mu.Unlock()
		said, err := r.set.Evaluate(capture.Observe(c), rules.Options{Now: time.Now()})
		if err != nil {
			return report.Verdict{}, err
		}
		return report.FromRules(said), nil
	}
	seer := &lender{}
	o.Attach = func(ctx context.Context, pid int) (*capture.Capture, error) {
		defer seer.give()
		return seer.take().Attach(ctx, pid, w.obs)
	}
	// Until here SIGHUP ends phpwhy, as it does every other command.
	signal.Reset(syscall.SIGHUP)
	reloads := make(chan os.Signal, 1)
	signal.Notify(reloads, syscall.SIGHUP)
	o.Reloads = reloads
}

// idleModules is how long parsed modules are kept between two observations:
// the next one of the same PHP is quicker, and a host without any pays nothing.
const idleModules = 5 * time.Minute

// lender lends an Observer out, and drops it when nobody has wanted it for a
// while, or when it has become old: containers come and go, and bring modules.
type lender struct {
	mu   sync.Mutex
	o    *observe.Observer
	made time.Time
	drop *time.Timer
}

func (l *lender) take() *observe.Observer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.drop != nil {
		l.drop.Stop()
	}
	if l.o == nil || time.Since(l.made) > 10*idleModules {
		l.o, l.made = observe.New(), time.Now()
	}
	return l.o
}

func (l *lender) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop = time.AfterFunc(idleModules, func() {
		l.mu.Lock()
		l.o = nil
		l.mu.Unlock()
		debug.FreeOSMemory()
	})
}

// watchLog writes lines to standard error, from several goroutines.
type watchLog struct {
	mu sync.Mutex
	s  streams
}

func newLog(s streams) *watchLog { return &watchLog{s: s} }

func (l *watchLog) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.s.err, "phpwhy: %s\n", oneLine(errors.New(text)))
}
