package cli

import (
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/series"
	"github.com/phpwhy/phpwhy/internal/triage"
	"github.com/phpwhy/phpwhy/rules"
)

func rulesOptions() rules.Options { return rules.Options{Now: time.Now()} }

func newReport(s streams) *cobra.Command {
	var j judged
	var out string
	cmd := &cobra.Command{
		Use:   "report FILE...",
		Short: "Report on captures in other formats",
		Long:  "report says what captures of one or many workers have in common.\n\nFormats:\n" + formatsHelp,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageErrorf("report takes captures")
			}
			if err := binaryToTerminal(s, j.format, out); err != nil {
				return err
			}
			r := j.load()
			m := &triage.Model{Schema: triage.Schema}
			var b series.Builder
			for _, a := range args {
				in, err := readInput(a, s.in)
				if err != nil {
					return err
				}
				if err := addCapture(m, in, r); err != nil {
					return err
				}
				b.Add("", time.Time{}, in.capture)
			}
			return toFile(s, out, func(w io.Writer) error { return writeExport(w, j.format, m, b.Series()) })
		},
	}
	j.flags(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write")
	return cmd
}
