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

// stopsTable: how many stacks a second breakpoints give.
func (b *bench) stopsTable(ctx context.Context) error {
	rows := [][]string{{"tool", "stacks per second", "stops", "seconds", "frames"}}
	for _, m := range []struct {
		name, frames string
		count        func(context.Context, *worker) (rate, error)
	}{
		{"`phpwhy attach --engine hwbp`", "native and PHP", b.phpwhyStops("hwbp")},
		{"`phpwhy attach --engine int3`", "native and PHP", b.phpwhyStops("int3")},
		{"`phpwhy attach --engine uprobe`", "native and PHP", b.phpwhyStops("uprobe")},
		{"gdb, `bt` in breakpoint commands", "native", b.gdbStops},
		{"`strace -k -e trace=mremap`", "native", b.straceStops},
		{"a bare ptrace loop in C", "none, it only counts", b.bareStops},
	} {
		b.progress("stops: %s", m.name)
		w, err := b.start(ctx, filepath.Join(b.root, "internal", "bench", "testdata", "append.php"))
		if err != nil {
			return err
		}
		r, err := m.count(ctx, w)
		w.kill()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			rows = append(rows, []string{m.name, b.failure(m.name, err), "", "", ""})
			continue
		}
		rows = append(rows, []string{m.name, strconv.Itoa(int(r.perSecond())), strconv.Itoa(r.n),
			strconv.FormatFloat(r.dur.Seconds(), 'f', 1, 64), m.frames})
	}
	fmt.Fprintf(b.out, "\n### Stacks per second from a breakpoint on mremap\n\n"+
		"Counted for %v each, on a fresh worker that does little but call mremap (`internal/bench/testdata/append.php`).\n\n", b.stream)
	return table(b.out, rows)
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

func (b *bench) straceStops(ctx context.Context, w *worker) (rate, error) {
	cmd := exec.CommandContext(ctx, "strace", "-q", "-k", "-e", "trace=mremap", "-p", w.pid())
	return b.countLines(ctx, cmd, w, "mremap(")
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

// bareStops compiles and runs the loop that does nothing but count its own
// child's stops: what the machine gives at best.
func (b *bench) bareStops(ctx context.Context, _ *worker) (rate, error) {
	bin := filepath.Join(b.tmp, "bareloop")
	src := filepath.Join(b.root, "internal", "ptrace", "testdata", "bareloop.c")
	if out, err := exec.CommandContext(ctx, "gcc", "-O2", "-o", bin, src).CombinedOutput(); err != nil {
		return rate{}, fmt.Errorf("gcc: %w: %s", err, firstLine(string(out)))
	}
	seconds := strconv.FormatFloat(b.stream.Seconds(), 'f', 1, 64)
	out, err := exec.CommandContext(ctx, bin, seconds).Output()
	if err != nil {
		return rate{}, err
	}
	perSecond, err := strconv.ParseFloat(strings.Fields(string(out) + " ?")[0], 64)
	if err != nil {
		return rate{}, err
	}
	return rate{int(perSecond * b.stream.Seconds()), b.stream}, nil // it prints the rate alone
}
