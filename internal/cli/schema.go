package cli

import (
	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/report"
)

func newSchema(s streams) *cobra.Command {
	return &cobra.Command{
		Use:       "schema report|doctor",
		Short:     "Print the JSON Schema of --format json",
		ValidArgs: []string{"report", "doctor"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] != "report" && args[0] != "doctor" {
				return usageErrorf("schema takes one word: report or doctor")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			schema := report.JSONSchema()
			if args[0] == "doctor" {
				schema = report.DoctorJSONSchema()
			}
			_, err := s.out.Write(schema)
			return err
		},
	}
}
