package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/doctor"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
	"github.com/phpwhy/phpwhy/internal/report"
)

func newDoctor(s streams) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "doctor [PID]",
		Short: "Tell what works here, and what to change",
		Long: `doctor tries every way to stop and to read a process on one of its own, and
says which work here, why the others do not, and what to change: a capability,
a setting, a container's profile. With a PID it says the same of that process,
and what can be read of it; the process is not stopped.
It ends with 0 when attach works, 3 when the process is the problem, and 4 when
nothing works for lack of permission.`,
		Example: "  phpwhy doctor\n  phpwhy doctor 4242\n  phpwhy doctor --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := unsuspended(cmd.Context(), s)
			defer done()
			return runDoctor(ctx, s, format, args)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func runDoctor(ctx context.Context, s streams, format string, args []string) error {
	o := doctor.Options{Functions: observe.Defaults().Break}
	switch {
	case len(args) > 1:
		return usageErrorf("doctor takes one PID at most")
	case format != "text" && format != "json":
		return usageErrorf("--format is text or json, not %q", format)
	case len(args) == 1:
		var err error
		if o.PID, err = parsePID(args[0]); err != nil {
			return err
		}
		if o.PID <= 0 {
			return usageErrorf("a PID is a positive number, not %d", o.PID)
		}
	}
	proc.MakeWay()
	o.Kept = proc.Drop(proc.Tracing() | proc.Uprobes())
	d, err := doctor.Examine(ctx, o)
	var werr error
	if format == "json" {
		werr = report.DoctorJSON(s.out, d)
	} else {
		werr = report.DoctorText(s.out, d, textOptions(s.out))
	}
	return errors.Join(err, werr)
}
