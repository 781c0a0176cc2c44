package cli

import (
	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/report"
)

func newSchema(s streams) *cobra.Command {
	return &cobra.Command{
		Use:       "schema report",
		Short:     "Print the JSON Schema of --format json",
		ValidArgs: []string{"report"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] != "report" {
				return usageErrorf("schema takes one word: report")
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			_, err := s.out.Write(report.JSONSchema())
			return err
		},
	}
}
