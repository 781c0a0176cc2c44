package cli

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/spf13/cobra"

	"github.com/phpwhy/phpwhy/internal/capture"
	"github.com/phpwhy/phpwhy/internal/observe"
	"github.com/phpwhy/phpwhy/internal/proc"
)

func newDump(s streams) *cobra.Command {
	var j judged
	var l lookFlags
	var running bool
	var k keeping
	cmd := &cobra.Command{
		Use:   "dump PID...",
		Short: "Print one joined stack of every thread, now",
		Long: `dump stops each process once, for as long as copying its stacks takes, and prints every thread's native and PHP frames.
With --no-stop it stops nothing and prints PHP frames only: for a process that another tracer holds, or that must not be stopped at all.`,
		Example: "  phpwhy dump 4242\n  phpwhy dump $(pgrep -f 'php-fpm: pool') --format json",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, done := unsuspended(cmd.Context(), s)
			defer done()
			return dump(ctx, s, &j, &l, &k, running, args)
		},
	}
	j.flags(cmd)
	l.flags(cmd)
	k.flags(cmd)
	cmd.Flags().BoolVar(&running, "no-stop", false, "do not stop the process: read its PHP frames while it runs")
	return cmd
}

// dumpGC lets the heap grow to some 20 MB before it is first collected: most dumps
// end before.
const dumpGC = 400

// dump prints every process it can, and ends with the first failure's code.
func dump(ctx context.Context, s streams, j *judged, l *lookFlags, k *keeping, running bool, args []string) error {
	if len(args) == 0 {
		return usageErrorf("dump takes at least one PID")
	}
	if err := j.check(); err != nil {
		return err
	}
	look, err := l.look()
	if err != nil {
		return err
	}
	if running && (look.Values || len(look.Vars) > 0) {
		return usageErrorf("--no-stop reads no variables: they change while they are read; leave out --values and --var")
	}
	pids := make([]int, len(args))
	for i, a := range args {
		var err error
		if pids[i], err = parsePID(a); err != nil {
			return err
		}
	}
	proc.MakeWay()
	modest(proc.Tracing())
	defer debug.SetGCPercent(debug.SetGCPercent(dumpGC))
	// A processor is idle meanwhile: reading a process is mostly waiting for it.
	loaded := sync.OnceValue(j.load)
	go loaded()
	o := observe.New()
	o.Look = look
	defer k.in(o)()
	read := o.Dump
	if running {
		read = o.Sample
	}
	var first error
	for i, pid := range pids {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := dumpOne(ctx, s, j, loaded, read, pid, i); err != nil {
			if first == nil {
				first = err
			}
			// One bad process spoils no other.
			fmt.Fprintf(s.err, "phpwhy: %s\n", oneLine(err))
		}
	}
	if first != nil {
		return &silentError{first}
	}
	return j.gate.verdict(nil)
}

// reading makes a capture of one look at a process.
type reading func(context.Context, int) (*capture.Capture, error)

func dumpOne(ctx context.Context, s streams, j *judged, loaded func() ruleSet, read reading, pid, i int) error {
	c, err := read(ctx, pid)
	if err != nil {
		return err
	}
	if i > 0 && j.format == "text" {
		fmt.Fprintln(s.out)
	}
	return j.show(s, c, loaded())
}
