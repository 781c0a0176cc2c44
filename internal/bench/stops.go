package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// rate is a counted number of stops.
type rate struct {
	n   int
	dur time.Duration
}

func (r rate) perSecond() float64 { return float64(r.n) / r.dur.Seconds() }

// engines are phpwhy's. One that the binary does not know, or the machine does not
// allow, makes a row that says so.
var engines = []string{"int3", "hwbp", "uprobe", "syscall"}

// errNone says that a tool has no such thing, which is no failure.
var errNone = errors.New("this build does not have it")

// counter is a tool that takes stacks from breakpoints.
type counter struct {
	name, frames string
	count        func(context.Context, *worker) (rate, error)
}

func (b *bench) counters() []counter {
	var out []counter
	for _, e := range engines {
		out = append(out, counter{"`phpwhy attach --engine " + e + "`", "native and PHP", b.phpwhyStops(e)})
	}
	return append(out,
		counter{"gdb, `bt` in breakpoint commands", "native", b.gdbStops},
		counter{"`strace -k -e trace=mremap`", "native", b.straceStops("-k")},
		counter{"`strace -e trace=mremap`", "none", b.straceStops()},
		counter{"bpftrace, `@[ustack] = count()`", "native, as far as frame pointers go", b.bpftraceStops},
		counter{"a bare ptrace loop in C", "none, it only counts", b.bareStops})
}

// stopsTable: how many stacks a second breakpoints give, and what is left of the
// worker's speed.
func (b *bench) stopsTable(ctx context.Context) error {
	tools := b.counters()
	runs, speeds := make([][]float64, len(tools)), make([][]float64, len(tools))
	failed := make([]error, len(tools))
	for round := range b.rounds {
		for i, m := range tools {
			if failed[i] != nil {
				continue
			}
			b.progress("stops: round %d of %d, %s", round+1, b.rounds, m.name)
			r, left, err := b.countOn(ctx, m)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				failed[i] = err
				continue
			}
			runs[i], speeds[i] = append(runs[i], r.perSecond()), append(speeds[i], left)
		}
	}
	median := func(i int) float64 {
		if failed[i] != nil {
			return 0
		}
		return summarize(runs[i]).median
	}
	gdb, bare := median(len(engines)), median(len(tools)-1)
	rows := [][]string{{"tool", "stacks per second", "slowest", "fastest", "worker's speed", "to gdb", "to the bare loop", "frames"}}
	for i, m := range tools {
		switch err := failed[i]; {
		case errors.Is(err, errNone):
			rows = append(rows, []string{m.name, err.Error(), "", "", "", "", "", ""})
		case err != nil:
			rows = append(rows, []string{m.name, b.failure(m.name, err), "", "", "", "", "", ""})
		default:
			s := summarize(runs[i])
			rows = append(rows, []string{m.name, strconv.Itoa(int(s.median)), strconv.Itoa(int(s.min)), strconv.Itoa(int(s.max)),
				percent(summarize(speeds[i]).median), times(s.median, gdb), times(s.median, bare), m.frames})
		}
	}
	fmt.Fprintf(b.out, "\n### Stacks per second from a breakpoint on mremap\n\n"+
		"Counted for %v, %d rounds, medians; each on a fresh worker that does little but call mremap (`internal/bench/testdata/append.php`). "+
		"The worker's speed is what is left of its loop's speed just before.\n\n", b.stream, b.rounds)
	return table(b.out, rows)
}

// countOn runs a tool on a worker of its own.
func (b *bench) countOn(ctx context.Context, m counter) (rate, float64, error) {
	w, err := b.start(ctx, filepath.Join(b.root, "internal", "bench", "testdata", "append.php"))
	if err != nil {
		return rate{}, 0, err
	}
	defer w.kill()
	alone := w.watch()
	time.Sleep(aloneFor)
	before := alone()
	during := w.watch()
	r, err := m.count(ctx, w)
	left := during()
	if before <= 0 {
		return r, 0, errors.Join(err, errors.New("the worker does not move"))
	}
	return r, left / before, err
}

// phpwhyStops asks phpwhy for as many stops as it can take; the pause budget
// is off, since here the worker may be throttled.
func (b *bench) phpwhyStops(engine string) func(context.Context, *worker) (rate, error) {
	return func(ctx context.Context, w *worker) (rate, error) {
		cmd := exec.CommandContext(ctx, b.phpwhy, "attach", w.pid(), "--for", b.stream.String(), "--stops", "1000000",
			"--break", "mremap", "--engine", engine, "--max-pause", "100%", "--format", "json")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			if strings.Contains(errs.String(), "is not in this version") {
				return rate{}, errNone
			}
			return rate{}, fmt.Errorf("%w: %s", err, firstLine(errs.String()))
		}
		var report struct {
			Observation struct {
				Engine     string
				DurationMS float64 `json:"duration_ms"`
				Stops      int
			}
		}
		if err := json.Unmarshal(out, &report); err != nil {
			return rate{}, fmt.Errorf("its report: %w", err)
		}
		o := report.Observation
		if o.Engine != engine || o.Stops == 0 || o.DurationMS <= 0 {
			return rate{}, fmt.Errorf("it reports %+v", o)
		}
		return rate{o.Stops, time.Duration(o.DurationMS * float64(time.Millisecond))}, nil
	}
}

const gdbScript = `set pagination off
set confirm off
break mremap
commands
silent
bt
continue
end
continue
`

func (b *bench) gdbStops(ctx context.Context, w *worker) (rate, error) {
	script := filepath.Join(b.tmp, "stops.gdb")
	if err := os.WriteFile(script, []byte(gdbScript), 0o600); err != nil {
		return rate{}, err
	}
	cmd := exec.CommandContext(ctx, "gdb", "-nx", "-batch", "-p", w.pid(), "-x", script)
	return b.countLines(ctx, cmd, w, "#0 ")
}

func (b *bench) straceStops(flags ...string) func(context.Context, *worker) (rate, error) {
	return func(ctx context.Context, w *worker) (rate, error) {
		args := append([]string{"-q", "-e", "trace=mremap", "-p", w.pid()}, flags...)
		return b.countLines(ctx, exec.CommandContext(ctx, "strace", args...), w, "mremap(")
	}
}

// bpftraceStops counts the stacks in the kernel, which is what bpftrace is best at.
func (b *bench) bpftraceStops(ctx context.Context, w *worker) (rate, error) {
	lib, _, err := w.libc()
	if err != nil {
		return rate{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, b.stream+30*time.Second)
	defer cancel()
	script := fmt.Sprintf("uprobe:%s:mremap { @[ustack] = count(); } interval:ms:%d { exit(); }", lib, b.stream.Milliseconds())
	cmd := exec.CommandContext(ctx, "bpftrace", "-p", w.pid(), "-e", script)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return rate{}, fmt.Errorf("%w: %s", err, firstLine(errs.String()+out.String()))
	}
	r := rate{dur: b.stream}
	for line := range strings.Lines(out.String()) {
		if _, n, ok := strings.Cut(strings.TrimSpace(line), "]: "); ok {
			v, err := strconv.Atoi(n)
			if err != nil {
				return r, fmt.Errorf("its output has %q", line)
			}
			r.n += v
		}
	}
	if r.n == 0 {
		return r, fmt.Errorf("it counted nothing: %s", firstLine(errs.String()+out.String()))
	}
	return r, nil
}

// countLines counts the output lines of a tool that begin with prefix, from the
// first on and for b.stream. Then the worker is killed, and the tool with it:
// neither must get to tidy up, which for gdb can take long.
func (b *bench) countLines(ctx context.Context, cmd *exec.Cmd, w *worker, prefix string) (rate, error) {
	r, pipe := io.Pipe()
	cmd.Stdout, cmd.Stderr = pipe, pipe
	cmd.Env = append(os.Environ(), "DEBUGINFOD_URLS=", "LC_ALL=C")
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return rate{}, err
	}
	// A tool that prints nothing must not hold up the run.
	limit := time.AfterFunc(b.stream+30*time.Second, func() { _ = r.CloseWithError(errors.New("it gave no stacks in time")) })
	defer limit.Stop()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	var got rate
	var from time.Time
	var last string
	for lines.Scan() {
		last = lines.Text()
		if !strings.HasPrefix(last, prefix) {
			continue
		}
		if from.IsZero() {
			from = time.Now()
			continue
		}
		got.n++
		if got.dur = time.Since(from); got.dur >= b.stream {
			break
		}
	}
	err := lines.Err()
	_ = r.Close()
	_ = w.cmd.Process.Kill()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	_ = pipe.Close()
	if ctx.Err() == nil && err == nil && got.dur < b.stream {
		err = fmt.Errorf("it ended after %d stacks: %s", got.n, last)
	}
	return got, err
}

// bareStops compiles and runs the loop that does nothing but count the worker's
// stops: what the machine gives at best.
func (b *bench) bareStops(ctx context.Context, w *worker) (rate, error) {
	bin := filepath.Join(b.tmp, "bareloop")
	if _, err := os.Stat(bin); err != nil {
		src := filepath.Join(b.root, "internal", "bench", "testdata", "bareloop.c")
		if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", bin, src).CombinedOutput(); err != nil {
			return rate{}, fmt.Errorf("gcc: %w: %s", err, firstLine(string(out)))
		}
	}
	_, at, err := w.libc()
	if err != nil {
		return rate{}, err
	}
	cmd := exec.CommandContext(ctx, bin, w.pid(), fmt.Sprintf("%#x", at), strconv.FormatFloat(b.stream.Seconds(), 'f', 1, 64))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return rate{}, fmt.Errorf("%w: %s", err, firstLine(errs.String()))
	}
	var n int
	var seconds float64
	if _, err := fmt.Sscan(string(out), &n, &seconds); err != nil {
		return rate{}, fmt.Errorf("its output: %w", err)
	}
	return rate{n, time.Duration(seconds * float64(time.Second))}, nil
}
