package cli

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/target"
)

func newCore(s streams) *cobra.Command {
	var j judged
	var l lookFlags
	var k keeping
	var opt target.CoreOptions
	cmd := &cobra.Command{
		Use:   "core CORE",
		Short: "Print the joined stacks that a core file holds",
		Long: `core reads a core file, as the kernel or gcore writes it, and prints every thread's native and PHP frames as dump does.
A core holds what the process wrote; its code is in the files that it had mapped. They are looked for at their own paths, and one that
is another build by now is refused. For a core of another host, or of a container, name a folder with that host's files.`,
		Example: "  phpwhy core /var/crash/core.4242\n  phpwhy core core.4242 --exe php-fpm8.2.old\n  phpwhy core core.4242 --sysroot /srv/image",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageErrorf("core takes one core file")
			}
			if err := j.check(); err != nil {
				return err
			}
			look, err := l.look()
			if err != nil {
				return err
			}
			o := observe.New()
			o.Look = look
			defer k.in(o)()
			c, err := readCore(cmd.Context(), o, args[0], opt)
			if err != nil {
				return err
			}
			return j.gate.verdict(j.show(s, c, j.load()))
		},
	}
	j.flags(cmd)
	l.flags(cmd)
	k.flags(cmd)
	cmd.Flags().StringVar(&opt.Exe, "exe", "", "the program that the core is of, where it is not at its own path")
	cmd.Flags().StringVar(&opt.Sysroot, "sysroot", "", "the folder that has the process's files, as its root directory did")
	return cmd
}

// readCore reads a core; one that is none is unreadable input.
func readCore(ctx context.Context, o *observe.Observer, name string, opt target.CoreOptions) (*capture.Capture, error) {
	for _, path := range []string{opt.Exe, opt.Sysroot} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			return nil, &usageError{err}
		}
	}
	c, err := o.Core(ctx, name, opt)
	var path *os.PathError
	if errors.Is(err, target.ErrNotCore) || errors.Is(err, target.ErrOtherFile) || errors.As(err, &path) && path.Path == name {
		return nil, &usageError{err}
	}
	if errors.Is(err, target.ErrCutCore) {
		return nil, &dataError{err}
	}
	return c, err
}
