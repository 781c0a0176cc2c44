package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/offline"
	"github.com/phpwhy/phpwhy/internal/report"
	"github.com/phpwhy/phpwhy/internal/series"
	"github.com/phpwhy/phpwhy/internal/triage"
)

type reportFlags struct {
	judged
	out       string
	diff      bool
	symbolize bool
	debugDirs []string
}

func newReport(s streams) *cobra.Command {
	var r reportFlags
	cmd := &cobra.Command{
		Use:   "report FILE...|-",
		Short: "Say what many workers do, from captures of one or more hosts",
		Long: `report groups the workers of all captures by cause and by stack, and says who waits for whom.
It reads what "phpwhy collect -o" and "phpwhy attach --capture" have written, also where they were cut off.
With --symbolize it names native frames anew, from programs and debug files on this host that have the same build-id.

Formats:
` + formatsHelp + `

With --diff it compares two captures, as text or JSON: which findings, stacks and workers are new, gone, grown or
shrunk. Stacks are compared by their share of all events. As "folded", each line has both counts, for flamegraph.pl.
--fail-on then looks at the second one's findings.`,
		Example: "  phpwhy report web1.zst web2.zst web3.zst\n  phpwhy report --format html -o hang.html hang.zst\n  phpwhy report --diff before.zst after.zst\n  phpwhy report --symbolize --debug-dir /srv/debug hang.zst",
		RunE:    func(_ *cobra.Command, args []string) error { return r.run(s, args) },
	}
	r.judged.flags(cmd)
	cmd.Flags().Lookup("format").Usage = "text, json, folded, pprof, speedscope or html"
	cmd.Flags().StringVarP(&r.out, "output", "o", "", "write to this file, whole or not at all, instead of standard output")
	cmd.Flags().BoolVar(&r.diff, "diff", false, "compare two captures: what is new, gone, grown (formats text, json and folded)")
	cmd.Flags().BoolVar(&r.symbolize, "symbolize", false, "name native frames by files on this host")
	cmd.Flags().StringArrayVar(&r.debugDirs, "debug-dir", nil, "further folder with debug files or programs (may be repeated); implies --symbolize")
	return cmd
}

func (r *reportFlags) run(s streams, args []string) error {
	if len(args) == 0 {
		return usageErrorf("report takes captures, or - for standard input")
	}
	if err := r.checkFormat(s, args); err != nil {
		return err
	}
	for _, d := range r.debugDirs {
		if st, err := os.Stat(d); err != nil || !st.IsDir() {
			return usageErrorf("--debug-dir: %s is no folder", d)
		}
	}
	if r.diff {
		return r.compare(s, args)
	}
	m, over, err := r.model(s, args)
	if m == nil {
		return err
	}
	r.gate.many(m)
	return r.gate.verdict(errors.Join(toFile(s, r.out, func(s streams) error { return writeReport(s, r.format, m, over) }), err))
}

// model reads every file that it can.
func (r *reportFlags) model(s streams, args []string) (*triage.Model, []series.Series, error) {
	b := triage.NewBuilder()
	var over *series.Builder
	if r.format == "html" {
		over = new(series.Builder)
	}
	var n *offline.Namer
	if r.symbolize || len(r.debugDirs) > 0 {
		n = offline.New(r.debugDirs)
		defer func() { _ = n.Close() }()
		b.Name = n.Stack
	}
	var first error
	read := 0
	for _, a := range args {
		if err := readMany(b, over, a, s.in); err != nil {
			if first == nil {
				first = err
			}
			// One bad file spoils no other.
			fmt.Fprintf(s.err, "phpwhy: %s\n", oneLine(err))
			var damaged *triage.DamagedError
			if !errors.As(err, &damaged) {
				continue
			}
		}
		read++
	}
	if first != nil {
		first = &silentError{first}
	}
	if read == 0 {
		return nil, nil, first
	}
	rs := r.load()
	m := b.Model(rs.set, time.Now())
	for _, p := range rs.problems {
		m.Notes = append(m.Notes, "rule skipped: "+p.String())
	}
	if n != nil && len(n.Missing) > 0 {
		m.Notes = append(m.Notes, notFound(n))
	}
	if over == nil {
		return m, nil, first
	}
	if over.Full() {
		m.Notes = append(m.Notes, "workers were too many to draw the evidence of each over time")
	}
	return m, over.Series(), first
}

func notFound(n *offline.Namer) string {
	var parts []string
	for path, why := range n.Missing {
		p := filepath.Base(path)
		if why != nil {
			p += " (" + why.Error() + ")"
		}
		parts = append(parts, p)
	}
	slices.Sort(parts)
	return "no file of the same build was found for " + strings.Join(parts, ", ")
}

func readMany(b *triage.Builder, over *series.Builder, name string, stdin io.Reader) error {
	var r io.ReadCloser
	var err error
	if name == "-" {
		r, err = capture.Decompress(stdin)
	} else {
		if st, serr := os.Stat(name); serr == nil && st.IsDir() {
			return usageErrorf("%s is a folder; name a capture", name)
		}
		r, err = capture.Open(name)
	}
	if err != nil {
		return &dataError{err}
	}
	defer r.Close()
	if err := b.Read(name, lookedAt(capture.NewStream(r), over)); err != nil {
		return &dataError{err}
	}
	return nil
}

func showMany(s streams, format string, m *triage.Model) error {
	if format == "json" {
		return report.ManyJSON(s.out, m)
	}
	return report.ManyText(s.out, m, textOptions(s.out))
}
