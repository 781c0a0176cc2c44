package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/compare"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/report/export"
	"github.com/phpwhy/phpwhy/internal/report/html"
	"github.com/phpwhy/phpwhy/internal/series"
	"github.com/phpwhy/phpwhy/internal/triage"
)

var (
	reportFormats = []string{"text", "json", "folded", "pprof", "speedscope", "html"}
	diffFormats   = []string{"text", "json", "folded"}
)

const formatsHelp = `  text        groups of workers, the largest cause first
  json        the same for programs
  folded      a line per stack, for flamegraph.pl; PHP frames end in " [php]"
  pprof       for go tool pprof and what stores profiles; with the labels pid,
              host, pool, finding, uri and kind
  speedscope  for speedscope, which works from a local copy, too
  html        one page that needs nothing else: findings, flame graph, workers,
              evidence over time`

// checkFormat checks what is asked for before anything is read.
func (r *reportFlags) checkFormat(s streams, args []string) error {
	known, of := reportFormats, "--format"
	if r.diff {
		known, of = diffFormats, "--format with --diff"
		if len(args) != 2 {
			return usageErrorf("--diff takes two captures, not %d", len(args))
		}
	}
	if !slices.Contains(known, r.format) {
		last := len(known) - 1
		return usageErrorf("%s is %s or %s, not %q", of, strings.Join(known[:last], ", "), known[last], r.format)
	}
	if f, ok := asFile(s.out); ok && r.format == "pprof" && toStdout(r.out) && term.IsTerminal(int(f.Fd())) {
		return usageErrorf("pprof is a binary format; name a file with -o")
	}
	j := r.judged
	j.format = "text"
	return j.check()
}

// writeReport writes m in one of reportFormats.
func writeReport(s streams, format string, m *triage.Model, over []series.Series) error {
	switch format {
	case "folded":
		return export.Folded(s.out, m)
	case "pprof":
		return export.Pprof(s.out, m)
	case "speedscope":
		return export.Speedscope(s.out, m)
	case "html":
		return html.Write(s.out, m, over)
	}
	return showMany(s, format, m)
}

// compare says what differs between two captures.
func (r *reportFlags) compare(s streams, args []string) error {
	a, _, errA := r.model(s, args[:1])
	b, _, errB := r.model(s, args[1:])
	if a == nil || b == nil {
		return errors.Join(errA, errB)
	}
	r.gate.many(b)
	return r.gate.verdict(errors.Join(toFile(s, r.out, func(s streams) error {
		if r.format == "folded" {
			return export.FoldedDiff(s.out, a, b)
		}
		d := compare.Reports(a, b)
		if r.format == "json" {
			return report.DiffJSON(s.out, d)
		}
		return report.DiffText(s.out, d, textOptions(s.out))
	}), errA, errB))
}

// lookedAt has over look at all records; nil looks at none.
func lookedAt(r triage.Records, over *series.Builder) triage.Records {
	if over == nil {
		return r
	}
	return &watched{r, over}
}

// watched are records that are also looked at for what changes over time.
type watched struct {
	triage.Records
	over *series.Builder
}

func (w *watched) Next() (capture.Record, error) {
	rec, err := w.Records.Next()
	if err == nil {
		w.over.Record(&rec)
	}
	return rec, err
}

func toStdout(name string) bool { return name == "" || name == "-" }

// toFile runs write with the file that -o names as output, or with standard
// output without one. A file appears whole or not at all, and replaces what had
// its name.
func toFile(s streams, name string, write func(streams) error) error {
	if toStdout(name) {
		return write(s)
	}
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		return toDevice(s, name, write)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return usageErrorf("-o %s: %v", name, reason(err))
	}
	defer os.Remove(f.Name())
	// Stacks and URIs are for whoever made the report, as captures are: mode 0600.
	if err := errors.Join(buffered(s, f, write), f.Close()); err != nil {
		return &dataError{fmt.Errorf("-o %s: %w", name, reason(err))}
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return usageErrorf("-o: %v", err)
	}
	return nil
}

// toDevice writes to what can't be replaced: a pipe, /dev/null.
func toDevice(s streams, name string, write func(streams) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return usageErrorf("-o: %v", err)
	}
	if err := errors.Join(buffered(s, f, write), f.Close()); err != nil {
		return &dataError{fmt.Errorf("-o %s: %w", name, reason(err))}
	}
	return nil
}

func buffered(s streams, w io.Writer, write func(streams) error) error {
	b := bufio.NewWriter(w)
	s.out = b
	if err := write(s); err != nil {
		_ = b.Flush() // it fails for the same reason, or what was written helps to see the other
		return err
	}
	return b.Flush()
}
