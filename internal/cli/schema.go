package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/report"
)

func newSchema(s streams) *cobra.Command {
	words := []string{"report", "doctor", "finding", "capture"}
	return &cobra.Command{
		Use:       "schema report|doctor|finding|capture",
		Short:     "Print the JSON Schema of --format json, of what watch prints, or of a capture's lines",
		ValidArgs: words,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(words, args[0]) {
				return usageErrorf("schema takes one word: report, doctor, finding or capture")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			schema := report.JSONSchema()
			switch args[0] {
			case "doctor":
				schema = report.DoctorJSONSchema()
			case "finding":
				schema = report.WatchedJSONSchema()
			case "capture":
				schema = capture.JSONSchema()
			}
			_, err := s.out.Write(schema)
			return err
		},
	}
}
