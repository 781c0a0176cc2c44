package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// tally sums up rounds.
type tally struct {
	rounds, hit, lost, stopped, text, mask, leftovers, stray, tool, leftPage int
	signals, wrong                                                           uint64
}

func (t *tally) add(o *outcome) {
	t.rounds++
	t.text += o.text
	t.signals += o.signals
	t.wrong += o.wrong
	t.stray += o.stray
	for _, c := range []struct {
		n  *int
		is bool
	}{{&t.hit, o.hit}, {&t.lost, o.lost}, {&t.stopped, o.stopped}, {&t.mask, o.mask}, {&t.leftovers, o.leftovers}, {&t.tool, o.tool != ""}, {&t.leftPage, o.leftPage}} {
		if c.is {
			*c.n++
		}
	}
}

// what names what failed.
func (o *outcome) what() string {
	var out []string
	for _, c := range []struct {
		is   bool
		name string
	}{
		{o.lost, "worker lost"}, {o.stopped, "left stopped"}, {o.text > 0, "text changed"}, {o.signals > 0, fmt.Sprintf("%d signals lost", o.signals)},
		{o.mask, "signal mask changed"}, {o.wrong > 0, "wrong results"}, {o.leftovers, "left behind"}, {o.stray > 0, "stray process"}, {o.tool != "", o.tool},
	} {
		if c.is {
			out = append(out, c.name)
		}
	}
	return strings.Join(out, ", ")
}

var tallyHead = []string{"rounds", "while traced", "workers lost", "left stopped", "text bytes changed", "signals lost", "mask changed", "wrong results", "left behind", "stray processes", "phpwhy's faults", "left page"}

func (t *tally) cells() []string {
	var out []string
	for _, n := range []any{t.rounds, t.hit, t.lost, t.stopped, t.text, t.signals, t.mask, t.wrong, t.leftovers, t.stray, t.tool, t.leftPage} {
		out = append(out, fmt.Sprint(n))
	}
	return out
}

// maxShown bounds the failures that are listed below the tables.
const maxShown = 20

// print writes Markdown.
func (c *config) print(ctx context.Context, out io.Writer, results []*outcome) error {
	header(ctx, out, [][]string{{c.phpwhy, "version"}, {c.php, "-n", "-v"}})
	fmt.Fprintf(out, "- %d rounds of %d for each of %s, seeds from %d, %d at a time\n\n",
		len(results)/len(c.engines), c.rounds, strings.Join(c.engines, ", "), c.base, c.slots)
	rows := [][]string{append([]string{"engine", "event"}, tallyHead...)}
	for _, e := range c.engines {
		var all tally
		for _, ev := range events {
			var t tally
			for _, o := range results {
				if o.engine == e && o.event == ev {
					t.add(o)
					all.add(o)
				}
			}
			if t.rounds > 0 {
				rows = append(rows, append([]string{e, ev.name}, t.cells()...))
			}
		}
		rows = append(rows, append([]string{e, "**all**"}, all.cells()...))
	}
	if err := table(out, rows); err != nil {
		return err
	}
	fmt.Fprint(out, "\nThose rounds in which phpwhy got SIGKILL, by the moment:\n\n")
	err := c.group(out, "moment", results, func(o *outcome) string {
		if !o.event.kills {
			return ""
		}
		return string(o.phase)
	}, phaseStart, phaseArm, phaseMiddle, phaseEnd)
	if err != nil {
		return err
	}
	fmt.Fprint(out, "\nAll rounds, by the worker:\n\n")
	err = c.group(out, "worker", results, func(o *outcome) string { return string(o.kind) },
		kindLoop, kindThreads, kindMasked, kindConcat, kindFPM, kindMaster)
	if err != nil {
		return err
	}
	c.printFailures(out, results)
	return nil
}

// group prints a table with a row per engine and value.
func (c *config) group(out io.Writer, title string, results []*outcome, by func(*outcome) string, values ...any) error {
	rows := [][]string{append([]string{"engine", title}, tallyHead...)}
	for _, e := range c.engines {
		for _, v := range values {
			var t tally
			for _, o := range results {
				if o.engine == e && by(o) == fmt.Sprint(v) {
					t.add(o)
				}
			}
			rows = append(rows, append([]string{e, fmt.Sprint(v)}, t.cells()...))
		}
	}
	return table(out, rows)
}

func (c *config) printFailures(out io.Writer, results []*outcome) {
	shown := 0
	for _, o := range results {
		if !o.failed() {
			continue
		}
		if shown++; shown == 1 {
			fmt.Fprint(out, "\nFailures; to repeat one: `go run ./internal/chaos -engines ENGINE -seed SEED -again -rounds 100`\n\n")
		}
		if shown <= maxShown {
			fmt.Fprintf(out, "- %s, seed %d, %s, worker %s, %s: %s: %s\n", o.engine, o.seed, o.event.name, o.kind, o.phase, o.what(), strings.Join(o.notes, "; "))
		}
	}
	if shown > maxShown {
		fmt.Fprintf(out, "- and %d more\n", shown-maxShown)
	}
}

// table prints rows as Markdown; the first is the header.
func table(w io.Writer, rows [][]string) error {
	for i, r := range rows {
		line := "| " + strings.Join(r, " | ") + " |\n"
		if i == 0 {
			line += "|" + strings.Repeat(" --- |", len(r)) + "\n"
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	return nil
}

// intoFile prints to out and, when a file is named, also puts the text into it
// between its lines <!-- MARK --> and <!-- /MARK -->.
func intoFile(path, mark string, out io.Writer, print func(io.Writer) error) error {
	var b strings.Builder
	perr := print(io.MultiWriter(out, &b))
	if path == "" || perr != nil {
		return perr
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	from, to := "<!-- "+mark+" -->\n", "<!-- /"+mark+" -->"
	before, rest, ok := strings.Cut(string(text), from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %s and %s", path, strings.TrimSpace(from), to)
	}
	return os.WriteFile(path, []byte(before+from+b.String()+to+after), 0o644)
}

// header says where and with what the figures were taken.
func header(ctx context.Context, out io.Writer, versions [][]string) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(b))
	}
	cpu := "unknown CPU"
	for line := range strings.Lines(read("/proc/cpuinfo")) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			cpu = strings.TrimSpace(v)
			break
		}
	}
	load, _, _ := strings.Cut(read("/proc/loadavg"), " ")
	fmt.Fprintf(out, "Measured on %s: %s, %d × %s, Linux %s, load %s at the end.\n", time.Now().UTC().Format("2006-01-02"),
		runtime.GOARCH, runtime.NumCPU(), cpu, read("/proc/sys/kernel/osrelease"), load)
	for _, v := range versions {
		b, err := exec.CommandContext(ctx, v[0], v[1:]...).CombinedOutput()
		line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		if line == "" && err != nil {
			line = v[0] + ": " + err.Error()
		}
		fmt.Fprintf(out, "- %s\n", line)
	}
}
