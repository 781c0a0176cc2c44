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

	"github.com/phpwhy/phpwhy/internal/report/export"
	"github.com/phpwhy/phpwhy/internal/report/html"
	"github.com/phpwhy/phpwhy/internal/series"
	"github.com/phpwhy/phpwhy/internal/triage"
)

// exportFormats are the formats of "report" beside text and json.
var exportFormats = []string{"folded", "pprof", "speedscope", "html"}

func isExport(format string) bool { return slices.Contains(exportFormats, format) }

// writeExport writes m in one of exportFormats.
func writeExport(w io.Writer, format string, m *triage.Model, over []series.Series) error {
	switch format {
	case "folded":
		return export.Folded(w, m)
	case "pprof":
		return export.Pprof(w, m)
	case "speedscope":
		return export.Speedscope(w, m)
	case "html":
		return html.Write(w, m, over)
	}
	return fmt.Errorf("there is no format %q", format)
}

// toFile runs write on the file that -o names, or on standard output without
// one. A file appears whole or not at all, and replaces what had its name.
func toFile(s streams, name string, write func(io.Writer) error) error {
	if name == "" || name == "-" {
		b := bufio.NewWriter(s.out)
		return errors.Join(write(b), b.Flush())
	}
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		return toDevice(name, write)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return &usageError{fmt.Errorf("-o: %w", err)}
	}
	defer os.Remove(f.Name())
	b := bufio.NewWriter(f)
	// Stacks and URIs are for whoever made the report, as captures are.
	if err := errors.Join(write(b), b.Flush(), f.Chmod(0o600), f.Close()); err != nil {
		return fmt.Errorf("-o %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return &usageError{fmt.Errorf("-o: %w", err)}
	}
	return nil
}

// toDevice writes to what can't be replaced: a pipe, /dev/null.
func toDevice(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return &usageError{fmt.Errorf("-o: %w", err)}
	}
	b := bufio.NewWriter(f)
	return errors.Join(write(b), b.Flush(), f.Close())
}

// binaryToTerminal refuses to write what a terminal can't show.
func binaryToTerminal(s streams, format, name string) error {
	f, ok := s.out.(*os.File)
	if ok && format == "pprof" && (name == "" || name == "-") && term.IsTerminal(int(f.Fd())) {
		return usageErrorf("pprof is a binary format; name a file with -o")
	}
	return nil
}

// formatsHelp is the help text on formats.
var formatsHelp = strings.TrimSpace(`
text        groups of workers, the largest cause first
json        the same for programs
folded      a line per stack, for flamegraph.pl; PHP frames end in "[php]"
pprof       for go tool pprof and whatever stores profiles; labels pid, host,
            pool, finding, uri and kind
speedscope  for https://www.speedscope.app, which works without a network, too
html        one page that needs nothing else: findings, flame graph, workers,
            evidence over time
`)
