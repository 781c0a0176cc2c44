package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// summary of a number of measurements.
type summary[T cmp.Ordered] struct{ median, min, max T }

// summarize takes at least one value. Of an even number the lower of the two
// in the middle is the median: a value that was measured.
func summarize[T cmp.Ordered](v []T) summary[T] {
	s := slices.Sorted(slices.Values(v))
	return summary[T]{s[(len(s)-1)/2], s[0], s[len(s)-1]}
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

// ratio is how many times the base something is; empty without a base.
func ratio(d, base time.Duration) string {
	if base <= 0 {
		return ""
	}
	return fmt.Sprintf("%.1f×", float64(d)/float64(base))
}

// times is how many times the base something is; empty without a base.
func times(v, base float64) string {
	if base <= 0 {
		return ""
	}
	if r := v / base; r >= 10 {
		return fmt.Sprintf("%.0f×", r)
	}
	return fmt.Sprintf("%.2f×", v/base)
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// table prints rows as Markdown; the first is the header.
func table(w io.Writer, rows [][]string) error {
	for i, r := range rows {
		cells := make([]string, len(r))
		for j, c := range r {
			cells[j] = strings.ReplaceAll(strings.ReplaceAll(c, "\n", " "), "|", `\|`)
		}
		line := "| " + strings.Join(cells, " | ") + " |\n"
		if i == 0 {
			line += "|" + strings.Repeat(" --- |", len(r)) + "\n"
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	return nil
}

// header says where and with what the figures were measured.
func (b *bench) header(ctx context.Context) {
	fmt.Fprintf(b.out, "Measured on %s: %s, %d × %s, Linux %s, load %s at the start.\n", time.Now().UTC().Format("2006-01-02"),
		runtime.GOARCH, runtime.NumCPU(), fileField("/proc/cpuinfo", "model name"), strings.TrimSpace(fileText("/proc/sys/kernel/osrelease")), firstWord(fileText("/proc/loadavg")))
	for _, c := range [][]string{{b.phpwhy, "version"}, {b.php, "-n", "-v"}, {"gdb", "--version"}, {"eu-stack", "--version"}, {"strace", "--version"}, {"bpftrace", "--version"}} {
		out, err := exec.CommandContext(ctx, c[0], c[1:]...).Output()
		version := firstLine(string(out))
		if err != nil {
			version = c[0] + ": " + err.Error()
		}
		fmt.Fprintf(b.out, "- %s\n", version)
	}
}

func fileText(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	return string(text)
}

// fileField returns the first "name : value" of a file.
func fileField(path, name string) string {
	for line := range strings.Lines(fileText(path)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown CPU"
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return word
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(line)
}
