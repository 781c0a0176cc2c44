package cli

import (
	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/report"
)

func newSchema(s streams) *cobra.Command {
	return &cobra.Command{
		Use:       "schema report|doctor|finding",
		Short:     "Print the JSON Schema of --format json, or of what watch prints",
		ValidArgs: []string{"report", "doctor", "finding"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] != "report" && args[0] != "doctor" && args[0] != "finding" {
				return usageErrorf("schema takes one word: report, doctor or finding")
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
			}
			_, err := s.out.Write(schema)
			return err
		},
	}
}
