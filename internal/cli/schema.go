package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/report"
)

// schemas are the forms that other programs read.
var schemas = []struct {
	word string
	get  func() []byte
}{
	{"report", report.JSONSchema},
	{"triage", report.ManyJSONSchema},
	{"diff", report.DiffJSONSchema},
	{"doctor", report.DoctorJSONSchema},
	{"finding", report.WatchedJSONSchema},
	{"capture", capture.JSONSchema},
}

func newSchema(s streams) *cobra.Command {
	var words []string
	for _, x := range schemas {
		words = append(words, x.word)
	}
	last := len(words) - 1
	return &cobra.Command{
		Use:   "schema " + strings.Join(words, "|"),
		Short: "Print the JSON Schema of what --format json writes, of watch's lines, or of a capture's",
		Long: `schema prints a JSON Schema:

  report   of attach and dump with --format json (phpwhy/report/v1)
  triage   of collect and report with --format json, on many workers (phpwhy/triage/v1)
  diff     of report --diff with --format json (phpwhy/diff/v1)
  doctor   of doctor with --format json
  finding  of each line that watch prints
  capture  of each line of what collect -o writes (phpwhy/capture/v2)`,
		ValidArgs: words,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(words, args[0]) {
				return usageErrorf("schema takes one word: %s or %s", strings.Join(words[:last], ", "), words[last])
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			for _, x := range schemas {
				if x.word == args[0] {
					_, err := s.out.Write(x.get())
					return err
				}
			}
			return nil
		},
	}
}
