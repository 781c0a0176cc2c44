package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/ptrace"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/rules"
)

// judged are the flags of commands that judge what they saw.
type judged struct {
	rules     []string
	noBuiltin bool
	format    string
	gate      gate
}

func (j *judged) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&j.rules, "rules", nil, "folder with further rules (may be repeated)")
	f.BoolVar(&j.noBuiltin, "no-builtin-rules", false, "leave the built-in rules out")
	f.StringVar(&j.format, "format", "text", "text or json")
	j.gate.flags(cmd)
}

func (j *judged) check() error {
	if j.format != "text" && j.format != "json" {
		return usageErrorf("--format is text or json, not %q", j.format)
	}
	for _, d := range j.rules {
		st, err := os.Stat(d)
		switch {
		case err != nil:
			return usageErrorf("--rules: %v", err)
		case !st.IsDir():
			return usageErrorf("--rules: %s is not a folder", d)
		}
	}
	return nil
}

// ruleSet are the rules in force, and what was wrong with those left out.
type ruleSet struct {
	set      *rules.Set
	problems []rules.Problem
}

func (j *judged) load() ruleSet {
	set, problems := rules.LoadSources(ruleSources(j.noBuiltin, j.rules)...)
	return ruleSet{set, problems}
}

// show judges a capture and prints the report.
func (j *judged) show(s streams, c *capture.Capture, r ruleSet) error {
	if err := c.Normalize(); err != nil {
		return err
	}
	said, err := r.set.Evaluate(capture.Observe(c), rules.Options{Now: time.Now()})
	if err != nil {
		return err
	}
	v := report.FromRules(said)
	for _, p := range r.problems {
		v.Notes = append(v.Notes, "rule skipped: "+p.String())
	}
	rep := report.Build(c, v)
	j.gate.one(rep)
	if j.format == "json" {
		return report.JSON(s.out, rep)
	}
	return report.Text(s.out, rep, textOptions(s.out))
}

// textOptions decides on colour and width by where the text goes.
func textOptions(w io.Writer) report.TextOptions {
	var o report.TextOptions
	f, ok := asFile(w)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return o
	}
	// https://no-color.org: present and not an empty string.
	o.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		o.Width = width
	}
	return o
}

type attachFlags struct {
	judged
	lookFlags
	obs     observe.Options
	look    observe.Look
	keep    keeping
	pause   string
	capture string
}

func newAttach(s streams) *cobra.Command {
	a := attachFlags{obs: observe.Defaults()}
	cmd := &cobra.Command{
		Use:   "attach PID | attach -- CMD ARG...",
		Short: "Attach to a hung worker and name the root cause",
		Long: `attach stops a PHP process for moments, at each mmap and mremap and on a timer,
reads its native and PHP stacks, and names the root cause. The process runs on
at full speed afterwards. With -- CMD ARG... it starts a command, observes it from
its first instruction, and ends it when the observation is over; what the command
prints goes to standard error.`,
		Example: "  phpwhy attach 4242\n  phpwhy attach 4242 --for 10s --capture hang.jsonl\n  phpwhy attach -- php report.php",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := unsuspended(cmd.Context(), s)
			defer done()
			return a.run(ctx, s, cmd.ArgsLenAtDash(), args)
		},
	}
	a.judged.flags(cmd)
	a.lookFlags.flags(cmd)
	a.keep.flags(cmd)
	f := cmd.Flags()
	f.DurationVar(&a.obs.For, "for", a.obs.For, "how long to observe at most")
	f.IntVar(&a.obs.Stops, "stops", a.obs.Stops, fmt.Sprintf("how many breakpoint stops to see at most (of a command: %d)", commandStops))
	f.StringSliceVar(&a.obs.Break, "break", a.obs.Break, "functions of the C library to stop at; empty for samples only")
	f.StringVar(&a.obs.Engine, "engine", a.obs.Engine, "how to stop: auto, hwbp, int3 or syscall; or uprobe, which stops nothing")
	f.StringVar(&a.pause, "max-pause", "20%", "share of the time that the worker may be stopped")
	f.StringVar(&a.capture, "capture", "", "also write what was recorded to this file (.zst: compressed)")
	return cmd
}

func (a *attachFlags) check(atDash int, args []string) error {
	switch {
	case atDash < 0 && len(args) != 1:
		return usageErrorf("attach takes one PID, or -- and a command")
	case atDash > 0:
		return usageErrorf("attach takes a PID or a command, not both")
	case atDash == 0 && len(args) == 0:
		return usageErrorf("a command is missing behind --")
	case a.obs.For <= 0:
		return usageErrorf("--for must be longer than 0")
	case a.obs.Stops < 1:
		return usageErrorf("--stops must be at least 1")
	}
	switch a.obs.Engine {
	case "auto", "hwbp", "int3":
	case "syscall":
		for _, name := range a.obs.Break {
			if ptrace.Syscall(name) < 0 {
				return usageErrorf("--engine syscall stops at mmap, mremap and the like, not at %s; take auto, hwbp or int3", name)
			}
		}
	case observe.EngineUprobe:
		switch {
		case atDash == 0:
			return usageErrorf("--engine uprobe watches a process that runs; for a command take auto, hwbp, int3 or syscall")
		case a.values || len(a.vars) > 0:
			return usageErrorf("--engine uprobe does not stop the worker, so its variables can't be read; take auto, hwbp, int3 or syscall")
		}
	default:
		return usageErrorf("--engine is auto, hwbp, int3, syscall or uprobe, not %q", a.obs.Engine)
	}
	var err error
	if a.obs.MaxPause, err = percent(a.pause); err != nil {
		return err
	}
	if a.look, err = a.lookFlags.look(); err != nil {
		return err
	}
	return a.judged.check()
}

// percent reads 20% as 0.2.
func percent(s string) (float64, error) {
	var v float64
	var rest string
	n, _ := fmt.Sscanf(s+" ", "%f%s", &v, &rest)
	if n != 2 || rest != "%" || !(v > 0 && v <= 100) { // which NaN is not
		return 0, usageErrorf("--max-pause is a share such as 20%%, not %q", s)
	}
	return v / 100, nil
}

func parsePID(s string) (int, error) {
	pid, err := strconv.Atoi(s)
	if errors.Is(err, strconv.ErrRange) {
		return 0, usageErrorf("a PID is a small number, not %q", s)
	}
	if err != nil {
		return 0, usageErrorf("a PID is a number, not %q", s)
	}
	return pid, nil
}

func (a *attachFlags) run(ctx context.Context, s streams, atDash int, args []string) error {
	if err := a.check(atDash, args); err != nil {
		return err
	}
	r := a.load()
	var out *capture.Output
	if a.capture != "" {
		// Before anything is stopped: a full disk is no reason to have done so.
		var err error
		if out, err = capture.Prepare(a.capture); err != nil {
			return usageErrorf("--capture: %v", err)
		}
		defer func() { _ = out.Close() }() // a second time: write has done so, and has checked
	}
	done := progress(s.err, &a.obs)
	c, err := a.observe(ctx, atDash, args)
	done()
	err = a.misplaced(err)
	if c == nil || err != nil && len(c.Events) == 0 && ctx.Err() == nil {
		return err // nothing was seen
	}
	if err != nil {
		// What was seen until then is worth showing; the error follows it.
		c.Observation.Notes = append(c.Observation.Notes, oneLine(err))
	}
	werr := a.write(out, c)
	return a.gate.verdict(errors.Join(a.show(s, c, r), werr, ended(ctx, err), gone(c, atDash)))
}

// misplaced makes a wrong --break an error of usage: it is no fault of the target.
func (a *attachFlags) misplaced(err error) error {
	switch {
	case errors.Is(err, observe.ErrNoBreakpoint) && !slices.Equal(a.obs.Break, observe.Defaults().Break):
		return &usageError{fmt.Errorf("--break %s: %w", strings.Join(a.obs.Break, ","), err)}
	case errors.Is(err, ptrace.ErrTooMany) && len(a.obs.Break) > ptrace.MaxHardware:
		return &usageError{fmt.Errorf("%w; name fewer functions, or take --engine int3", err)}
	}
	return err
}

// gone makes the end of an attached process show in the exit code, with the
// report already printed. A command that was started is expected to end.
func gone(c *capture.Capture, atDash int) error {
	if c.Observation.Ended != "target-exited" || atDash == 0 {
		return nil
	}
	return fmt.Errorf("process %d ended while it was observed; the report shows what was seen until then", c.Target.PID)
}

// ended drops the cancellation that the user asked for.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// commandStops is the default of --stops for a command: what hangs is small
// when it starts, and shows only once it has grown.
const commandStops = 5000

func (a *attachFlags) observe(ctx context.Context, atDash int, args []string) (*capture.Capture, error) {
	o := observe.New()
	o.Look = a.look
	defer a.keep.in(o)()
	if atDash == 0 {
		if a.obs.Stops == observe.Defaults().Stops {
			a.obs.Stops = commandStops
		}
		// The command keeps what phpwhy gives up. It may have become another
		// user by the time it is to be ended.
		o.Started = func() { modest(a.needs() | proc.Caps(proc.CapKill)) }
		// The command's output must not mix with the result.
		return o.Command(ctx, args, [3]*os.File{os.Stdin, os.Stderr, os.Stderr}, a.obs)
	}
	pid, err := parsePID(args[0])
	if err != nil {
		return nil, err
	}
	proc.MakeWay()
	modest(a.needs())
	return o.Attach(ctx, pid, a.obs)
}

// needs are the capabilities to keep.
func (a *attachFlags) needs() proc.CapSet {
	if a.obs.Engine == observe.EngineUprobe {
		return proc.Tracing() | proc.Uprobes()
	}
	return proc.Tracing()
}

func (a *attachFlags) write(out *capture.Output, c *capture.Capture) error {
	if out == nil {
		return nil
	}
	if err := c.Normalize(); err != nil {
		return err
	}
	err := capture.Write(out, c)
	if err == nil {
		err = out.Close()
	}
	if err != nil {
		return &dataError{fmt.Errorf("--capture %s: %w", a.capture, reason(err))}
	}
	return nil
}

// progress shows a counter on a terminal and returns what wipes it.
func progress(w io.Writer, o *observe.Options) func() {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	shown := false
	o.Progress = func(stops, samples int) {
		shown = true
		fmt.Fprintf(w, "\robserving: %d stops, %d samples ", stops, samples)
	}
	return func() {
		if shown {
			fmt.Fprint(w, wipe())
		}
	}
}
