package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tool prints one stack of a process.
type tool struct {
	name string
	argv []string // PID stands for the pid
	cold bool     // empty its cache before each run
	// must is a text that a right answer contains: a tool that fails fast
	// would otherwise win.
	must string
}

func (b *bench) dumpTools() []tool {
	dump := []string{b.phpwhy, "dump", "PID"}
	return []tool{
		{name: "`phpwhy dump`, empty cache", argv: dump, cold: true, must: "buildReport"},
		{name: "`phpwhy dump`, again", argv: dump, must: "buildReport"},
		{name: "`gdb -batch -ex bt`", argv: []string{"gdb", "-nx", "-batch", "-ex", "bt", "-p", "PID"}, must: "execute_ex"},
		{name: "`eu-stack -i -s`", argv: []string{"eu-stack", "-i", "-s", "-p", "PID"}, must: "execute_ex"},
		{name: "`eu-stack`", argv: []string{"eu-stack", "-p", "PID"}, must: "execute_ex"},
	}
}

// once is one run of a tool.
type once struct {
	wall   time.Duration
	rssKiB int64
}

// runTool runs a tool on a process to its end.
func (b *bench) runTool(ctx context.Context, t tool, pid, must string) (once, error) {
	cache := filepath.Join(b.tmp, "cache")
	if t.cold {
		if err := os.RemoveAll(cache); err != nil {
			return once{}, err
		}
	}
	argv := make([]string, len(t.argv))
	for i, a := range t.argv {
		argv[i] = strings.ReplaceAll(a, "PID", pid)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	// Nothing of this machine's settings: no cache of earlier runs, no
	// look-ups of debug information over the network.
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+cache, "DEBUGINFOD_URLS=", "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	from := time.Now()
	err := cmd.Run()
	o := once{wall: time.Since(from)}
	if err != nil {
		return o, fmt.Errorf("%w: %s", err, firstLine(errs.String()))
	}
	if !strings.Contains(out.String(), must) {
		return o, fmt.Errorf("its output has no %q", must)
	}
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		o.rssKiB = ru.Maxrss
	}
	return o, nil
}

// dumpTable: how long one stack takes.
func (b *bench) dumpTable(ctx context.Context) error {
	tools := b.dumpTools()
	runs := make([][]once, len(tools))
	failed := make([]error, len(tools))
	for round := range b.runs {
		b.progress("dump: round %d of %d", round+1, b.runs)
		for i, t := range tools {
			if failed[i] != nil {
				continue
			}
			w, err := b.concat(ctx)
			if err != nil {
				return err
			}
			o, err := b.runTool(ctx, t, w.pid(), t.must)
			w.kill()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				failed[i] = err
				continue
			}
			runs[i] = append(runs[i], o)
		}
	}
	fmt.Fprintf(b.out, "\n### One stack of a hung worker\n\nFrom the command to its end, with a fresh worker each time; %d rounds.\n\n", b.runs)
	rows := [][]string{{"tool", "median", "fastest", "slowest", "peak memory", "to the first"}}
	var first time.Duration
	for i, t := range tools {
		if failed[i] != nil {
			rows = append(rows, []string{t.name, b.failure(t.name, failed[i]), "", "", "", ""})
			continue
		}
		var walls []time.Duration
		var rss []int64
		for _, o := range runs[i] {
			walls, rss = append(walls, o.wall), append(rss, o.rssKiB)
		}
		s, m := summarize(walls), summarize(rss)
		if i == 0 {
			first = s.median
		}
		rows = append(rows, []string{t.name, ms(s.median), ms(s.min), ms(s.max),
			strconv.FormatInt(m.median/1024, 10) + " MB", ratio(s.median, first)})
	}
	return table(b.out, rows)
}

// The gap worker's life, and when in it the tool begins. The life is long
// enough for gdb on a slow machine.
const (
	gapLife  = 2500 * time.Millisecond
	gapStart = 200 * time.Millisecond
)

// pauseTable: how long a worker stands still for one stack.
func (b *bench) pauseTable(ctx context.Context) error {
	// The gap worker runs no buildReport; a tool proves itself by its own line.
	tools := append([]tool{{name: "nothing (the machine's noise)"}}, b.dumpTools()...)
	gaps := make([][]time.Duration, len(tools))
	failed := make([]error, len(tools))
	for round := range b.runs {
		b.progress("pause: round %d of %d", round+1, b.runs)
		for i, t := range tools {
			if failed[i] != nil {
				continue
			}
			g, err := b.gapDuring(ctx, t)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				failed[i] = err
				continue
			}
			gaps[i] = append(gaps[i], g)
		}
	}
	fmt.Fprintf(b.out, "\n### The longest pause of the worker during that\n\n"+
		"Measured by the worker itself, a PHP loop that reads the clock (`internal/bench/testdata/gap.php`); %d rounds.\n\n", b.runs)
	rows := [][]string{{"tool", "median", "shortest", "longest"}}
	for i, t := range tools {
		if failed[i] != nil {
			rows = append(rows, []string{t.name, b.failure(t.name, failed[i]), "", ""})
			continue
		}
		s := summarize(gaps[i])
		rows = append(rows, []string{t.name, ms(s.median), ms(s.min), ms(s.max)})
	}
	return table(b.out, rows)
}

func (b *bench) gapDuring(ctx context.Context, t tool) (time.Duration, error) {
	script := filepath.Join(b.root, "internal", "bench", "testdata", "gap.php")
	w, err := b.start(ctx, script, strconv.FormatInt(gapLife.Milliseconds(), 10))
	if err != nil {
		return 0, err
	}
	defer w.kill()
	from := time.Now()
	time.Sleep(gapStart)
	if t.argv != nil {
		must := "watch"
		if t.must == "execute_ex" {
			must = t.must
		}
		if _, err := b.runTool(ctx, t, w.pid(), must); err != nil {
			return 0, err
		}
		if over := time.Since(from) - gapLife; over > 0 {
			return 0, fmt.Errorf("it took %v longer than the worker lives", over)
		}
	}
	return w.longestGap()
}
